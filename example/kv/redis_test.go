package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// differences are the commands whose replies cannot be those of Redis 7.0, and why. Besides:
// scores with a fraction that has no short binary form are written in the shortest form that reads
// back the same, as Redis does since 7.2, where 7.0 writes 17 digits; a score of -0 is 0 in sorted
// sets of any size; and a time to live differs by the time between two requests.
var differences = map[string]string{
	"hello":          "the connection's number",
	"client|id":      "the connection's number",
	"client|setinfo": "came with Redis 7.2",
	"info":           "figures of the process",
	"command":        "this server has fewer commands, and no flags or documents of them",
	"command|count":  "this server has fewer commands",
	"command|docs":   "this server has no documents",
	"config|get":     "the parameters are this server's",
	"quit":           "ends the script",
}

// A script is a number of commands for one connection.
type script struct {
	name     string
	commands [][]string
	sort     int // elements of an aggregate come in any order, by so many
}

// TestAgainstRedis sends the same scripts to redis-server and to this one, in both protocols.
func TestAgainstRedis(t *testing.T) {
	redis := startRedis(t)
	_, addr := start(t, defaults)
	scripts := slices.Concat(fileScripts(t), arityScripts(), typeScripts())
	if len(scripts) < 300 {
		t.Errorf("scripts: got %d, want 300 or more", len(scripts))
	}
	for _, s := range scripts {
		for _, protocol := range []string{"2", "3"} {
			want := s.run(t, redis, protocol)
			got := s.run(t, addr, protocol)
			for i := range max(len(want), len(got)) {
				if i >= len(want) || i >= len(got) || want[i] != got[i] {
					t.Errorf("RESP%s: %s\nreply %d:\n got %q\nwant %q", protocol, s.name, i, got[min(i, len(got)):], want[min(i, len(want)):])
					break
				}
			}
		}
	}
	t.Logf("%d scripts", len(scripts))
}

// fileScripts reads those of testdata/scripts.txt.
func fileScripts(t *testing.T) (scripts []script) {
	file, err := os.ReadFile("testdata/scripts.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.SplitAfter(string(file), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		s := script{name: line}
		if rest, ok := strings.CutPrefix(line, "~ "); ok {
			line, s.sort = rest, 1
		} else if rest, ok := strings.CutPrefix(line, "% "); ok {
			line, s.sort = rest, 2
		}
		for _, command := range strings.Split(line, " | ") {
			s.commands = append(s.commands, words(t, command))
		}
		scripts = append(scripts, s)
	}
	return scripts
}

// words splits a command of the file.
func words(t *testing.T, command string) (words []string) {
	for command != "" {
		word, rest, _ := strings.Cut(command, " ")
		if word[0] == '"' {
			quoted, err := strconv.QuotedPrefix(command)
			if err != nil {
				t.Fatalf("%s: %v", command, err)
			}
			word, _ = strconv.Unquote(quoted)
			rest = strings.TrimPrefix(command[len(quoted):], " ")
		}
		words, command = append(words, word), rest
	}
	return words
}

// eachCommand calls f with the words of each command that Redis answers likewise.
func eachCommand(f func(name []string, k *command)) {
	for _, k := range commands {
		for _, sub := range k.sub {
			if differences[sub.name] == "" {
				f(strings.Split(sub.name, "|"), sub)
			}
		}
		if differences[k.name] == "" {
			f([]string{k.name}, k)
		}
	}
}

// arityScripts have each command with any number of arguments, which are not of much sense.
func arityScripts() (scripts []script) {
	for _, arg := range []string{"1", "x"} {
		eachCommand(func(name []string, k *command) {
			s := script{name: fmt.Sprint("arity of ", name, ", all arguments ", arg)}
			for n := range 7 {
				s.commands = append(s.commands, slices.Concat(name, slices.Repeat([]string{arg}, n)))
			}
			scripts = append(scripts, s)
		})
	}
	return scripts
}

// typeScripts have each command of keys with a key of each type.
func typeScripts() (scripts []script) {
	for _, create := range []string{"SET k 5", "RPUSH k a", "SADD k a", "HSET k a 1", "ZADD k 1 a"} {
		eachCommand(func(name []string, k *command) {
			if k.data == nil {
				return
			}
			s := script{name: fmt.Sprint(name, " of a key made by ", create)}
			for _, args := range []string{"k", "k a", "k 0", "k 0 -1", "k 3 a", "k a 1"} {
				s.commands = append(s.commands, strings.Fields(create), slices.Concat(name, strings.Fields(args)), []string{"TYPE", "k"})
			}
			scripts = append(scripts, s)
		})
	}
	return scripts
}

// run returns the replies of a server to the script.
func (s *script) run(t *testing.T, addr, protocol string) (replies []string) {
	t.Helper()
	conn := dial(t, addr)
	defer conn.Close()
	conn.do("HELLO " + protocol)
	out := request("FLUSHALL")
	for _, words := range s.commands {
		out = append(out, request(words...)...)
	}
	conn.Write(append(out, request("QUIT")...))
	for {
		b, err := readReply(conn.r)
		if err != nil {
			return append(replies, string(b)) // what came of a reply when the connection was closed
		}
		replies = append(replies, string(s.sorted(b)))
	}
}

// sorted returns a reply with the elements in order, if they come in any.
func (s *script) sorted(reply []byte) []byte {
	r := bufio.NewReader(bytes.NewReader(reply))
	head, _ := r.ReadBytes('\n')
	if s.sort == 0 || !bytes.ContainsAny(head[:1], "*~%>") {
		return reply
	}
	var elements []string
	for {
		var element []byte
		for range s.sort {
			b, err := readReply(r)
			if err == io.EOF {
				slices.Sort(elements)
				return append(head, strings.Join(elements, "")...)
			}
			element = append(element, b...)
		}
		elements = append(elements, string(element))
	}
}
