package main

import (
	"fmt"
	"math/rand"
	"strconv"
	"strings"
	"testing"
)

// slotRows are keys and their slots as Redis 7.0's CLUSTER KEYSLOT has them.
var slotRows = []struct {
	key  string
	slot int
}{
	{"", 0},
	{"foo", 12182},
	{"bar", 5061},
	{"123456789", 12739},
	{"key:000000000042", 7803},
	{"{user1000}.following", 3443},
	{"{user1000}.followers", 3443},
	{"foo{}{bar}", 8363},
	{"foo{{bar}}zap", 4015},
	{"foo{bar}{zap}", 5061},
	{"{}", 15257},
	{"{}a", 10875},
	{"{", 4092},
	{"}", 12090},
	{"a{b", 13340},
	{"a}b{c}", 7365},
	{"{a}", 15495},
	{"äöü", 4805},
	{strings.Repeat("k", 300), 16002},
}

func TestKeySlot(t *testing.T) {
	for _, row := range slotRows {
		if got := keySlot([]byte(row.key)); got != row.slot {
			t.Errorf("the slot of %q is %d, want %d", row.key, got, row.slot)
		}
	}
	if got := crc16([]byte("123456789")); got != 0x31c3 { // the check value of CRC-16/XMODEM
		t.Errorf("the CRC of 123456789 is %#x", got)
	}
}

// TestKeySlotOfRedis lets a real server judge the rows and random keys.
func TestKeySlotOfRedis(t *testing.T) {
	redis := dial(t, startRedis(t, "--cluster-enabled", "yes").addr, nil)
	keys := []string{}
	for _, row := range slotRows {
		keys = append(keys, row.key)
	}
	random := rand.New(rand.NewSource(1))
	for range 2000 { // short keys of few letters have braces in all orders
		key := make([]byte, random.Intn(8))
		for i := range key {
			key[i] = "{}ab\x00\xff"[random.Intn(6)]
		}
		keys = append(keys, string(key))
	}
	for _, key := range keys {
		redis.WriteBulkStrings([]string{"CLUSTER", "KEYSLOT", key})
	}
	redis.Flush()
	for _, key := range keys {
		if got, want := fmt.Sprintf(":%d\r\n", keySlot([]byte(key))), redis.read(); got != want {
			t.Errorf("the slot of %q is %q, Redis says %q", key, got, want)
		}
	}
}

func TestSlotOf(t *testing.T) {
	table := recordedTable(t)
	for _, row := range []struct {
		command string
		want    int
	}{
		{"GET foo", 12182},
		{"MGET foo foo", 12182},
		{"MGET {foo}1 2{foo}", 12182},
		{"MGET foo bar", crossSlot},
		{"MGET bar foo", crossSlot},
		{"PING", noSlot},
		{"EVAL s 0 foo", noSlot},
	} {
		c := commandOf(t, strings.Fields(row.command)...)
		positions, _ := table.lookup(c).keys(c, nil)
		if got := slotOf(c, positions); got != row.want {
			t.Errorf("%s: %d, want %d", row.command, got, row.want)
		}
	}
}

func BenchmarkKeySlot(b *testing.B) {
	for _, size := range []int{3, 16, 100} {
		b.Run("size="+strconv.Itoa(size), func(b *testing.B) {
			key := []byte(strings.Repeat("k", size))
			b.SetBytes(int64(size))
			for range b.N {
				keySlot(key)
			}
		})
	}
}
