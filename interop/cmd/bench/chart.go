package main

import (
	"fmt"
	"strings"
)

// A panel of the chart has groups of bars. Each group has a scale of its own, whose end is its
// longest bar.
type panel struct {
	title  string
	bench  string      // with %s for the group, up to the last element
	groups [][2]string // name and label
	bars   []string
	value  func(name string) float64
	label  func(v float64) string
}

// svg draws the chart, on no background and in tones that can be read on a light and a dark one.
func (r *results) svg() string {
	const width, left, bar, line = 760, 180, 450, 18
	impls := []string{"redisproto", "redcon", "tidwall-resp", "miniredis"}
	servers := []string{"redisproto", "redcon", "redis-server", "null"}
	commands := [][2]string{{"get", "GET"}, {"set", "SET, 64 B"}, {"mset10", "MSET of 10"}}
	pipelines := [][2]string{{"1", "pipeline 1"}, {"16", "pipeline 16"}, {"128", "pipeline 128"}}
	panels := []panel{
		{"Commands read in a second, pipelined", "BenchmarkCommand/cmd=%s/pipeline=16k/impl=", commands, impls,
			func(name string) float64 { return 1e3 / r.median(name, "ns/op") },
			func(v float64) string { return digits(v) + " million" }},
		{"Requests per second, redis-benchmark with 32 connections", "BenchmarkServer/pipeline=%s/server=", pipelines, servers,
			func(name string) float64 { return r.median(name, "req/s") / 1e3 },
			func(v float64) string { return digits(v) + " thousand" }},
		{"The server's processor time per request: less is better", "BenchmarkServer/pipeline=%s/server=", pipelines, servers,
			func(name string) float64 { return r.median(name, "cpu-ns/op") }, duration},
	}
	panels = append(panels, r.rpcPanels()...)
	var b strings.Builder
	y := 0
	text := func(x int, class, s string) {
		fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\" class=\"%s\">%s</text>\n", x, y+13, class, s)
	}
	for _, p := range panels {
		y += line / 2
		text(0, "title", p.title)
		y += line + 4
		for _, group := range p.groups {
			most := 0.0
			for _, name := range p.bars {
				most = max(most, p.value(fmt.Sprintf(p.bench, group[0])+name))
			}
			text(0, "", group[1])
			for _, name := range p.bars {
				v := p.value(fmt.Sprintf(p.bench, group[0]) + name)
				text(left-8, "name", name)
				w := max(1, int(v/most*bar))
				fmt.Fprintf(&b, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" class=\"%s\"/>\n", left, y+2, w, line-5, name)
				text(left+w+6, "", p.label(v))
				y += line
			}
			y += line / 2
		}
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%[1]d" height="%[2]d">
<style>
text { font: 12px system-ui, sans-serif; fill: #717c88 }
.title { font-weight: bold; font-size: 14px }
.name { text-anchor: end }
rect { fill: #8b95a1 }
.redisproto { fill: #1a85d6 }
.null { fill: none; stroke: #8b95a1 }
</style>
`, width, y) + b.String() + "</svg>\n"
}
