//go:build race

package redisproto

// raceEnabled: the bytes of a past command are overwritten, so that a view held too long shows.
const raceEnabled = true
