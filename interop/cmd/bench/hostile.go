package main

import "path/filepath"

// hostile runs cmd/hostile, which prints its tables ready for the report.
func (r *results) hostile(dir string, p plan) (err error) {
	step("hostile bytes: some minutes")
	r.hostileTables, err = output(filepath.Join(dir, "hostile"), "-timeout", p.hostileTimeout.String())
	return err
}

// hostileText introduces the tables.
const hostileText = `A few bytes that a peer sends on purpose, each case in a process of its own (` + "`go run ./cmd/hostile`" + `). A cell has the
bytes that were allocated, the memory of the process at its peak (15 MB if it does nothing), the time if it is 10 ms or more,
and how it ended. Allocated memory that is never written to does not show in the peak. The stream ends
behind the bytes shown. A Go program cannot recover from a stack overflow. None of
this is a danger where the other side is trusted, as a client trusts its own Redis.`
