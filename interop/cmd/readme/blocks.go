package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A block is a fenced block of a Markdown text. The words behind the language say what is done with it:
//
//	sh, console    lines are commands, each to be run at the root of the checkout, in order. If a line
//	               begins with "$ ", such lines are the commands, and those behind one are its output.
//	norun          the commands are not run: they take too long, or need a network
//	module         the commands are run in a module of one file, the last whole program of the text
//	numbers-vary   numbers in the output may be others
//	go             Go: a whole program if it has "package main", else declarations or statements
//	FILE           the block stands in this file of the checkout, word for word
//	FILE:FUNC      this function of the block does
type block struct {
	line     int // of the text, from 1
	section  int // how many headings stand before it
	language string
	options  []string
	lines    []string
}

func (b *block) has(option string) bool { return slices.Contains(b.options, option) }
func (b *block) text() string           { return strings.Join(b.lines, "\n") + "\n" }

var known = []string{"norun", "module", "numbers-vary"}

// blocks returns the fenced blocks of a text, and the first lines of its indented ones, which cannot
// say what they are.
func blocks(text string) (fenced []*block, indented []int, err error) {
	var open *block
	section, blank := 0, true
	for i, line := range strings.Split(text, "\n") {
		info, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && open != nil:
			fenced, open = append(fenced, open), nil
		case fence:
			open = &block{line: i + 1, section: section}
			if words := strings.Fields(info); len(words) > 0 {
				open.language, open.options = words[0], words[1:]
			}
			for _, option := range open.options {
				if !slices.Contains(known, option) && !strings.Contains(option, ".") {
					return nil, nil, fmt.Errorf("line %d: unknown word %q behind the language", i+1, option)
				}
			}
		case open != nil:
			open.lines = append(open.lines, line)
		case strings.HasPrefix(line, "#"):
			section++
		case strings.HasPrefix(line, "    ") && blank:
			indented = append(indented, i+1)
		}
		blank = line == ""
	}
	if open != nil {
		return nil, nil, fmt.Errorf("line %d: a block that does not end", open.line)
	}
	return fenced, indented, nil
}

// A command and the output that the text shows for it, if it shows any.
type command struct {
	line   int
	text   string
	output []string
}

// commands returns those of a block of the shell.
func (b *block) commands() (list []command) {
	session := slices.ContainsFunc(b.lines, func(l string) bool { return strings.HasPrefix(l, "$ ") })
	continued := false
	for i, line := range b.lines {
		text, prompt := strings.CutPrefix(line, "$ ")
		switch {
		case continued:
			list[len(list)-1].text += "\n" + line
		case session && !prompt && len(list) > 0:
			list[len(list)-1].output = append(list[len(list)-1].output, line)
			continue
		case !session && strings.TrimSpace(strings.SplitN(line, "#", 2)[0]) == "":
			continue // an empty line or a comment
		default:
			list = append(list, command{line: b.line + 1 + i, text: text})
		}
		continued = strings.HasSuffix(line, "\\")
	}
	return list
}

var number = regexp.MustCompile(`\d+(\.\d+)?`)

// same compares an output with the lines that the text shows: a line of "..." stands for any lines.
func same(output string, shown []string, numbersVary bool) bool {
	normal := func(line string) string {
		line = strings.TrimRight(line, " \r")
		line = line[strings.LastIndexByte(line, '\r')+1:] // what a terminal shows of a progress line
		if numbersVary {
			line = strings.Join(strings.Fields(number.ReplaceAllString(line, "0")), " ")
		}
		return line
	}
	var pattern strings.Builder
	for _, line := range shown {
		if line == "..." {
			pattern.WriteString(`(.*\n)*`)
			continue
		}
		pattern.WriteString(regexp.QuoteMeta(normal(line)) + `\n`)
	}
	var got strings.Builder
	for line := range strings.Lines(output) {
		got.WriteString(normal(strings.TrimSuffix(line, "\n")) + "\n")
	}
	return regexp.MustCompile(`^` + pattern.String() + `$`).MatchString(got.String())
}
