// Command readme holds a README to what it says: it runs each of its commands as it stands and compares
// the output with the one shown, and builds and vets each of its programs with nothing but the library.
//
//	cd interop && go run ./cmd/readme ../README.md
package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const patience = 10 * time.Minute // for a command

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: readme FILE")
		os.Exit(2)
	}
	c := &checker{out: os.Stdout}
	if err := c.check(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A checker goes through one text.
type checker struct {
	out     io.Writer
	root    string // the directory of the text, where its commands run
	library string // that of the library's checkout; "" is root
	module  string // a module of its own for programs
	server  *process
}

// check goes on after what is wrong, and returns all of it.
func (c *checker) check(file string) (err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if c.root, err = filepath.Abs(filepath.Dir(file)); err != nil {
		return err
	}
	c.library = cmp.Or(c.library, c.root)
	if c.module, err = os.MkdirTemp("", "readme"); err != nil {
		return err
	}
	defer os.RemoveAll(c.module)
	defer c.stopServer()
	all, indented, err := blocks(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	for _, line := range indented {
		fmt.Fprintf(c.out, "%s:%d: not checked: an indented block; a fence can say what it is\n", file, line)
	}
	var wrong []error
	section := 0
	for _, b := range all {
		if b.section != section {
			c.stopServer()
			section = b.section
		}
		if err := c.block(b); err != nil {
			wrong = append(wrong, fmt.Errorf("%s:%w", file, err))
		}
	}
	return errors.Join(wrong...)
}

func (c *checker) block(b *block) error {
	for _, option := range b.options {
		if strings.Contains(option, ".") {
			if err := c.excerpt(b, option); err != nil {
				return fmt.Errorf("%d: %w", b.line, err)
			}
			fmt.Fprintf(c.out, "ok: line %d: stands in %s\n", b.line, option)
		}
	}
	switch b.language {
	case "sh", "console":
		return c.shell(b)
	case "go":
		return c.golang(b)
	case "":
		return fmt.Errorf("%d: a block without a language", b.line)
	}
	return nil
}

// excerpt compares a block, or one function of it, with the file that it is from.
func (c *checker) excerpt(b *block, option string) error {
	file, function, one := strings.Cut(option, ":")
	source, err := os.ReadFile(filepath.Join(c.root, file))
	if err != nil {
		return err
	}
	text := b.text()
	if one {
		i := strings.Index("\n"+text, "\nfunc "+function+"(")
		if i < 0 {
			return fmt.Errorf("the block has no function %s", function)
		}
		j := strings.Index(text[i:], "\n}\n")
		if j < 0 {
			return fmt.Errorf("function %s does not end", function)
		}
		text = text[i : i+j+3]
	}
	if !strings.Contains("\n"+string(source), "\n"+text) {
		return fmt.Errorf("it does not stand in %s word for word", option)
	}
	return nil
}

// golang builds and vets a whole program, and looks at the syntax of anything else.
func (c *checker) golang(b *block) error {
	if !strings.Contains(b.text(), "package main\n") {
		declarations := "package p\n" + b.text()
		statements := "package p\nfunc f() {\n" + b.text() + "}\n"
		_, err := parser.ParseFile(token.NewFileSet(), "", declarations, 0)
		_, err2 := parser.ParseFile(token.NewFileSet(), "", statements, 0)
		if err != nil && err2 != nil {
			return fmt.Errorf("%d: neither declarations nor statements: %w", b.line, err2)
		}
		return nil
	}
	mod := fmt.Sprintf("module readme\n\ngo 1.23\n\nrequire github.com/secmask/go-redisproto v0.0.0\n\n"+
		"replace github.com/secmask/go-redisproto => %s\n", c.library)
	for name, text := range map[string]string{"main.go": b.text(), "go.mod": mod} {
		if err := os.WriteFile(filepath.Join(c.module, name), []byte(text), 0o666); err != nil {
			return err
		}
	}
	for _, args := range [][]string{{"vet", "."}, {"build", "-o", os.DevNull, "."}} {
		cmd := exec.Command("go", args...)
		cmd.Dir, cmd.Env = c.module, append(os.Environ(), "GOPROXY=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%d: go %s: %w\n%s", b.line, args[0], err, out)
		}
	}
	fmt.Fprintf(c.out, "ok: line %d: a program that builds and passes go vet\n", b.line)
	return nil
}

// shell runs the commands of a block. One that says that it listens is a server: it runs on until
// the section ends.
func (c *checker) shell(b *block) error {
	for _, k := range b.commands() {
		if b.has("norun") {
			fmt.Fprintf(c.out, "not run: line %d: %s\n", k.line, k.text)
			continue
		}
		dir, text := c.root, k.text
		if b.has("module") {
			dir, text = c.module, strings.ReplaceAll(k.text, "/path/to/checkout", c.library)
		}
		p, err := start(dir, text)
		if err != nil {
			return fmt.Errorf("%d: %w", k.line, err)
		}
		if err := p.waitFor(func(output string) bool { return strings.Contains(output, "listening") }); err != nil {
			p.stop()
			return fmt.Errorf("%d: %s: %w\n%s", k.line, k.text, err, p.output())
		}
		if p.running() {
			c.stopServer()
			c.server = p
		}
		if k.output != nil && !same(p.output(), k.output, b.has("numbers-vary")) {
			return fmt.Errorf("%d: %s: the output is\n%s\nand the text shows\n%s", k.line, k.text, p.output(), strings.Join(k.output, "\n"))
		}
		fmt.Fprintf(c.out, "ok: line %d: %s\n", k.line, k.text)
	}
	return nil
}

func (c *checker) stopServer() {
	if c.server != nil {
		c.server.stop()
		c.server = nil
	}
}

// A process is a command of a shell, in a group of its own.
type process struct {
	cmd   *exec.Cmd
	mu    sync.Mutex
	text  bytes.Buffer
	ended chan struct{}
	err   error // once ended
}

func start(dir, text string) (*process, error) {
	p := &process{cmd: exec.Command("bash", "-c", text), ended: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, p, p
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

func (p *process) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// waitFor waits until the process ends or its output is what a server says.
func (p *process) waitFor(server func(output string) bool) error {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		select {
		case <-p.ended:
			return p.err
		case <-time.After(20 * time.Millisecond):
			if server(p.output()) {
				return nil
			}
		}
	}
	return fmt.Errorf("it has not ended after %v, and does not say that it listens", patience)
}

// stop ends the process and all that it started.
func (p *process) stop() {
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.ended
	}
}
