package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCommands(t *testing.T) {
	text := strings.Join([]string{
		"# Title", "```console", "$ echo a \\", "  b", "a b", "$ true", "```",
		"## Two", "```sh norun", "# a comment", "make all   # and another", "", "make test", "```",
		"", "    indented", "    twice", "", "    again",
	}, "\n")
	all, indented, err := blocks(text)
	if err != nil || len(all) != 2 || len(indented) != 2 || indented[0] != 16 || indented[1] != 19 {
		t.Fatalf("blocks: got %d, indented ones at %d, error %v; want 2, [16 19], nil", len(all), indented, err)
	}
	if all[0].section != 1 || all[1].section != 2 || !all[1].has("norun") {
		t.Errorf("blocks: got sections %d and %d, options %q", all[0].section, all[1].section, all[1].options)
	}
	var got []string
	for _, b := range all {
		for _, k := range b.commands() {
			got = append(got, k.text+" -> "+strings.Join(k.output, "|"))
		}
	}
	want := []string{"echo a \\\n  b -> a b", "true -> ", "make all   # and another -> ", "make test -> "}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("commands: got %q, want %q", got, want)
	}
	for _, bad := range []string{"```sh\nno end", "```sh runn\n```"} {
		if _, _, err := blocks(bad); err == nil {
			t.Errorf("%q: got no error", bad)
		}
	}
}

func TestSame(t *testing.T) {
	for _, row := range []struct {
		output, shown string
		vary, want    bool
	}{
		{"a\nb\n", "a|b", false, true},
		{"a\nb\n", "a", false, false},
		{"a\nb\nc\n", "a|...|c", false, true},
		{"a\nc\n", "a|...|c", false, true},
		{"a\nb\n", "...", false, true},
		{"a 12\n", "a 7", false, false},
		{"a   12.50 ms\n", "a 7 ms", true, true},
		{"b 12\n", "a 7", true, false},
		{"10%\r20%\rdone.\r\n", "done.", false, true},
		{"axb\n", "a.b", false, false},
	} {
		if got := same(row.output, strings.Split(row.shown, "|"), row.vary); got != row.want {
			t.Errorf("same(%q, %q, numbers vary: %v): got %v, want %v", row.output, row.shown, row.vary, got, row.want)
		}
	}
}

// TestCheck has whole texts, with what is wrong in them.
func TestCheck(t *testing.T) {
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	program := "package main\n\nimport (\n\t\"os\"\n\n\t\"github.com/secmask/go-redisproto\"\n)\n\nfunc main() { redisproto.NewWriter(os.Stdout).WriteInt(1) }\n"
	for _, row := range []struct{ name, text, want string }{
		{"commands", "```console\n$ echo hi\nhi\n```\n```sh\ntrue\n```\n", ""},
		{"another output", "```console\n$ echo hi\nho\n```\n", "the output is\nhi"},
		{"a failing command", "\n```sh\nfalse\n```\n", "3: false: exit status 1"},
		{"not run", "```sh norun\nfalse\n```\n", ""},
		{"a server, until its section ends", "```console\n$ echo listening; exec sleep 1000\nlistening\n$ echo up\nup\n```\n# Next\n```sh\ntrue\n```\n", ""},
		{"a program", "```go\n" + program + "```\n```console module\n$ go run .\n:1\n```\n", ""},
		{"a program that does not build", "```go\n" + strings.Replace(program, "WriteInt(1)", "WriteInt()", 1) + "```\n", "go vet"},
		{"a program that vet refuses", "```go\n" + strings.Replace(program, "func main() {", "func main() { x := 1; x = x; _ = x;", 1) + "```\n", "go vet"},
		{"a program that needs more", "```go\n" + strings.Replace(program, "\t\"os\"\n", "\t\"os\"\n\t_ \"github.com/tidwall/redcon\"\n", 1) + "```\n", "redcon"},
		{"statements", "```go\nx := f()\nx++\n```\n", ""},
		{"no Go", "```go\nx := := 1\n```\n", "neither declarations nor statements"},
		{"an excerpt", "```go doc.go\nvar a = 1\n```\n", ""},
		{"a function", "```go doc.go:f\nvar b = 2\n\nfunc f() {\n\tg()\n}\n```\n", ""},
		{"another function", "```go doc.go:f\nfunc f() {\n\th()\n}\n```\n", "word for word"},
		{"no function", "```go doc.go:f\nvar a = 1\n```\n", "no function f"},
		{"no excerpt", "```go doc.go\nvar a = 2\n```\n", "word for word"},
	} {
		dir := t.TempDir()
		for name, text := range map[string]string{"README.md": row.text, "doc.go": "package x\n\nvar a = 1\n\nfunc f() {\n\tg()\n}\n"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		c := &checker{out: new(bytes.Buffer), library: root}
		err := c.check(filepath.Join(dir, "README.md"))
		switch {
		case row.want == "" && err != nil:
			t.Errorf("%s: got %v, want no error", row.name, err)
		case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
			t.Errorf("%s: got %v, want an error with %q", row.name, err, row.want)
		}
		if c.server != nil {
			t.Errorf("%s: the server is still there", row.name)
		}
	}
}
