//go:build unix

package main

import (
	"syscall"
	"testing"
)

// pauseProcess stops a process: its connections stay, and nothing answers.
func pauseProcess(t testing.TB, pid int) { signalProcess(t, pid, syscall.SIGSTOP) }

// resumeProcess lets a process that was paused go on.
func resumeProcess(t testing.TB, pid int) { signalProcess(t, pid, syscall.SIGCONT) }

func signalProcess(t testing.TB, pid int, signal syscall.Signal) {
	if err := syscall.Kill(pid, signal); err != nil {
		t.Error(err)
	}
}
