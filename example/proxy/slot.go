package main

import (
	"bytes"

	"github.com/secmask/go-redisproto"
)

// slotCount is the number of hash slots of a Redis Cluster.
const slotCount = 16384

// What slotOf returns in place of a slot.
const (
	noSlot    = -1 // no keys
	crossSlot = -2 // keys of several slots
)

// slotOf returns the slot of a command's keys, which are at these positions.
func slotOf(c *redisproto.Command, positions []int) int {
	slot := noSlot
	for _, at := range positions {
		s := keySlot(c.Get(at))
		if slot != noSlot && s != slot {
			return crossSlot
		}
		slot = s
	}
	return slot
}

// keySlot returns the slot of a key: the CRC16 of the key, modulo the number of slots. If there is
// something between the first "{" and the first "}" after it, only that counts, so that a client can
// put keys into the same slot.
func keySlot(key []byte) int {
	if open := bytes.IndexByte(key, '{'); open >= 0 {
		tag := key[open+1:]
		if n := bytes.IndexByte(tag, '}'); n > 0 {
			key = tag[:n]
		}
	}
	return int(crc16(key) % slotCount)
}

// crc16 is the CRC of XMODEM: polynomial x¹⁶+x¹²+x⁵+1, initial value 0, highest bit first. It takes
// eight bytes at a step where it can, since a step has to wait for the one before it.
func crc16(b []byte) uint16 {
	var crc uint16
	for ; len(b) >= 8; b = b[8:] {
		crc = crcTables[7][b[0]^byte(crc>>8)] ^ crcTables[6][b[1]^byte(crc)] ^
			crcTables[5][b[2]] ^ crcTables[4][b[3]] ^ crcTables[3][b[4]] ^
			crcTables[2][b[5]] ^ crcTables[1][b[6]] ^ crcTables[0][b[7]]
	}
	for _, c := range b {
		crc = crc<<8 ^ crcTables[0][byte(crc>>8)^c]
	}
	return crc
}

// crcTables[n] has the CRC of each byte with n zero bytes after it.
var crcTables = func() (tables [8][256]uint16) {
	for i := range tables[0] {
		crc := uint16(i) << 8
		for range 8 {
			crc = crc<<1 ^ crc>>15*0x1021
		}
		tables[0][i] = crc
	}
	for n := 1; n < len(tables); n++ {
		for i, crc := range tables[n-1] {
			tables[n][i] = crc<<8 ^ tables[0][crc>>8]
		}
	}
	return tables
}()
