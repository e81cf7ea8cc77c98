package redisproto

import (
	"encoding/binary"
	"math"
	"math/bits"
	"strconv"
)

// appendLine appends a line of text to b, which has room for len(s)+3 bytes. The bytes of s that
// would end it early become spaces.
func appendLine[T []byte | string](b []byte, kind byte, s T) []byte {
	start := len(b)
	b = b[:start+len(s)+3]
	b[start] = kind
	text := b[start+1 : start+1+len(s)]
	for i := range text {
		ch := s[i]
		if ch == '\r' || ch == '\n' {
			ch = ' '
		}
		text[i] = ch
	}
	b[len(b)-2], b[len(b)-1] = '\r', '\n'
	return b
}

// appendBulk appends a bulk string to b, which has room for maxHead+len(s)+2 bytes.
func appendBulk[T []byte | string](b []byte, s T) []byte {
	b = append(appendDecimal(b, '$', uint64(len(s))), s...)
	return append(b, "\r\n"...)
}

// appendHead appends a line that holds a number, an integer or the length that begins another type,
// to b, which has room for maxHead bytes. It may overwrite that room behind the line.
func appendHead(b []byte, kind byte, n int64) []byte {
	if n < 0 {
		b, kind, n = append(b, kind), '-', -n
	}
	return appendDecimal(b, kind, uint64(n))
}

// appendDecimal appends first, the digits of u and CR LF. Lengths and most integers are short, so
// their digits are written out. Those of others are written eight at once.
func appendDecimal(b []byte, first byte, u uint64) []byte {
	const zero, zeros = '0', 0x3030303030303030 // zeros is the text "00000000"
	switch {
	case u < 10:
		return append(b, first, zero+byte(u), '\r', '\n')
	case u < 100:
		return append(b, first, zero+byte(u/10), zero+byte(u%10), '\r', '\n')
	case u < 1000:
		return append(b, first, zero+byte(u/100), zero+byte(u/10%10), zero+byte(u%10), '\r', '\n')
	case u < 10_000:
		return append(b, first, zero+byte(u/1000), zero+byte(u/100%10), zero+byte(u/10%10), zero+byte(u%10), '\r', '\n')
	case u < 1e8:
		digits := eightDigits(u)
		leading := bits.TrailingZeros64(digits) / 8 // zeros
		b = append(b, first)
		end := len(b) + 8 - leading
		binary.LittleEndian.PutUint64(b[len(b):len(b)+8], digits>>(8*leading)|zeros)
		return append(b[:end], '\r', '\n')
	}
	b = appendDecimal(b, first, u/1e8)
	b = binary.LittleEndian.AppendUint64(b[:len(b)-2], eightDigits(u%1e8)|zeros)
	return append(b, '\r', '\n')
}

// eightDigits returns the decimal digits of u, which is less than 1e8, one in each byte. The first one
// is in the lowest byte. Each step cuts every number in the word into two of half as many digits, the
// first half staying where it is. It takes the same few instructions for any u, and no branch, so that
// nothing depends on whether the processor can predict how long the next number is.
func eightDigits(u uint64) uint64 {
	u = u/10_000 | u%10_000<<32                      // two numbers of four digits
	first := u * 10486 >> 20 & 0x0000_007f_0000_007f // u / 100
	u = first | (u-100*first)<<16                    // four of two digits
	first = u * 103 >> 10 & 0x000f_000f_000f_000f    // u / 10
	return first | (u-10*first)<<8
}

// appendFloat appends the shortest decimal that reads back as f, a float of that many bits. The
// notation is that of C's "%.17g", with an exponent below 1e-4 and from 1e17.
func appendFloat(b []byte, f float64, bits int) []byte {
	switch {
	case math.IsInf(f, 1):
		return append(b, "inf"...)
	case math.IsInf(f, -1):
		return append(b, "-inf"...)
	case math.IsNaN(f):
		return append(b, "nan"...)
	}
	format := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e17) {
		format = 'e'
	}
	return strconv.AppendFloat(b, f, format, -1, bits)
}
