package main

// globMatch reports whether s matches a pattern as Redis has them: "*" is any bytes, "?" any byte,
// "[a-z]" one of a class, "[^a-z]" one that is not, and a backslash takes the next byte as it is.
// It takes at most len(pattern)·len(s) steps.
func globMatch(pattern, s []byte) bool {
	star := -1  // where the last "*" is, or -1
	resume := 0 // how far s was when it came to that
	p := 0
	for i := 0; i < len(s); {
		if p < len(pattern) && pattern[p] == '*' {
			star, resume = p, i
			p++
			continue
		}
		if p < len(pattern) {
			if n, ok := matchByte(pattern[p:], s[i]); ok {
				p += n
				i++
				continue
			}
		}
		if star < 0 {
			return false
		}
		resume++ // the last "*" takes one byte more
		p, i = star+1, resume
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// matchByte matches c to the first element of a pattern that is not "*". n is how many bytes of
// the pattern that has.
func matchByte(pattern []byte, c byte) (n int, ok bool) {
	switch {
	case pattern[0] == '?':
		return 1, true
	case pattern[0] == '[':
		return matchClass(pattern, c)
	case pattern[0] == '\\' && len(pattern) > 1:
		return 2, pattern[1] == c
	default:
		return 1, pattern[0] == c
	}
}

// matchClass matches c to the class that a pattern begins with. A class without "]" goes on to the
// end of the pattern.
func matchClass(pattern []byte, c byte) (n int, ok bool) {
	n = 1
	negated := n < len(pattern) && pattern[n] == '^'
	if negated {
		n++
	}
	for n < len(pattern) && pattern[n] != ']' {
		switch rest := pattern[n:]; {
		case rest[0] == '\\' && len(rest) > 1:
			ok = ok || rest[1] == c
			n += 2
		case len(rest) > 2 && rest[1] == '-':
			low, high := min(rest[0], rest[2]), max(rest[0], rest[2])
			ok = ok || low <= c && c <= high
			n += 3
		default:
			ok = ok || rest[0] == c
			n++
		}
	}
	return min(n+1, len(pattern)), ok != negated
}
