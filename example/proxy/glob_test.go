package main

import (
	"math/rand"
	"strings"
	"testing"
)

func TestGlob(t *testing.T) {
	for _, row := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "abc", true}, {"a*", "abc", true}, {"*c", "abc", true},
		{"a*c", "abbc", true}, {"a*c", "ab", false}, {"a?c", "abc", true}, {"a?c", "ac", false}, {"h[ae]llo", "hello", true},
		{"h[ae]llo", "hillo", false}, {"h[^e]llo", "hallo", true}, {"h[^e]llo", "hello", false}, {"h[a-b]llo", "hbllo", true},
		{"h[b-a]llo", "hallo", true}, {`\*`, "*", true}, {`\*`, "a", false}, {`[\]]`, "]", true}, {"[abc", "b", true},
		{"a**b*", "axxbx", true}, {"A", "a", false}, {`a\`, `a\`, true},
		{strings.Repeat("a*", 30) + "b", strings.Repeat("a", 10000), false}, // which takes long if done badly
	} {
		if got := globMatch([]byte(row.pattern), []byte(row.s)); got != row.want {
			t.Errorf("%.20q matches %.20q: %v", row.pattern, row.s, got)
		}
	}
}

// TestGlobOfRedis lets a real server judge random patterns over random keys.
func TestGlobOfRedis(t *testing.T) {
	redis := dial(t, startRedis(t).addr, nil)
	random := rand.New(rand.NewSource(1))
	word := func(letters string, n int) string {
		b := make([]byte, random.Intn(n))
		for i := range b {
			b[i] = letters[random.Intn(len(letters))]
		}
		return string(b)
	}
	keys := map[string]bool{}
	for range 200 {
		key := word(`ab-]\^*`, 6)
		if key == "" || keys[key] {
			continue // patterns of stars do not match the empty key in all versions
		}
		keys[key] = true
		redis.WriteBulkStrings([]string{"SET", key, "1"})
	}
	var patterns []string
	for range 3000 {
		pattern := word(`ab*?[]^-\`, 9)
		patterns = append(patterns, pattern)
		redis.WriteBulkStrings([]string{"KEYS", pattern})
	}
	redis.Flush()
	for range keys {
		redis.read()
	}
	for _, pattern := range patterns {
		matched := map[string]bool{}
		r, err := redis.ReadReply()
		if err != nil {
			t.Fatal(err)
		}
		for key := range r.All() {
			matched[string(key.Bytes())] = true
		}
		for key := range keys {
			if got := globMatch([]byte(pattern), []byte(key)); got != matched[key] {
				t.Errorf("%q matches %q: %v, Redis says %v", pattern, key, got, matched[key])
			}
		}
	}
}
