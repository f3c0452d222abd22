// Prometheus's own parser, storage and PromQL over what our programs show, for the tier `receivers`: reads
// pages as JSON lines, each with the time that it counts for, then says which alerts fire for whom, and which
// expressions of the dashboard can't be read. Its own server would need minutes of real time for the `for`
// and the ranges of each rule; and a test of rules against samples made up by hand shows that the rules agree
// with whoever made them up.
//
//	alerts RULES DASHBOARD <PAGES    {"at_s", "job", "instance", "page"} a line; in the order of time
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb"
)

// pageBytesMax bounds one line of the input.
const pageBytesMax = 16 << 20

type page struct {
	At       int64  `json:"at_s"`
	Job      string `json:"job"`
	Instance string `json:"instance"`
	Text     string `json:"page"`
}

type prometheus struct {
	db     *tsdb.DB
	engine *promql.Engine
	groups []rulefmt.RuleGroup
	// Since when the alert was pending for this labelled thing.
	since map[string]map[string]time.Time
	// Jobs for which an alert has fired.
	fired map[string]map[string]bool
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("expected RULES and DASHBOARD")
	}
	read := parser.NewParser(parser.Options{})
	groups, errs := rulefmt.ParseFile(os.Args[1], false, model.UTF8Validation, read, slog.Default())
	if len(errs) > 0 {
		log.Fatalf("%v", errs)
	}
	expressions, err := dashboard(os.Args[2], read)
	check(err)
	folder, err := os.MkdirTemp("", "alerts")
	check(err)
	defer os.RemoveAll(folder)
	db, err := tsdb.Open(folder, nil, nil, tsdb.DefaultOptions(), nil)
	check(err)
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 10_000_000, Timeout: time.Minute, Parser: read})
	p := prometheus{
		db: db, engine: engine, groups: groups.Groups,
		since: map[string]map[string]time.Time{}, fired: map[string]map[string]bool{},
	}
	check(p.follow(os.Stdin))
	check(db.Close())
	fired := map[string][]string{}
	for _, group := range p.groups {
		for _, rule := range group.Rules {
			if rule.Alert == "" {
				continue
			}
			jobs := []string{}
			for job := range p.fired[rule.Alert] {
				jobs = append(jobs, job)
			}
			sort.Strings(jobs)
			fired[rule.Alert] = jobs
		}
	}
	check(json.NewEncoder(os.Stdout).Encode(map[string]any{"fired": fired, "expressions": expressions}))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// dashboard reads every expression, and returns how many there are.
func dashboard(path string, read parser.Parser) (int, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(content, &board); err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	// Grafana puts these in before it asks.
	variables := strings.NewReplacer("$__rate_interval", "5m", "$target", ".*", "$server", ".*")
	count := 0
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			if _, err := read.ParseExpr(variables.Replace(target.Expr)); err != nil {
				return 0, fmt.Errorf("%s: %s: %w", path, panel.Title, err)
			}
			count++
		}
	}
	return count, nil
}

// follow takes all pages; the rules are asked after the last of each moment.
func (p *prometheus) follow(input io.Reader) error {
	lines := bufio.NewScanner(input)
	lines.Buffer(nil, pageBytesMax)
	last := int64(0)
	for lines.Scan() {
		var one page
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			return err
		}
		if last != 0 && one.At != last {
			if err := p.evaluate(last); err != nil {
				return err
			}
		}
		last = one.At
		if err := p.scrape(one); err != nil {
			return fmt.Errorf("%s of %s: %w", one.Instance, one.Job, err)
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return p.evaluate(last)
}

func (p *prometheus) scrape(one page) error {
	parse, err := textparse.New([]byte(one.Text), "text/plain; version=0.0.4", nil, textparse.ParserOptions{})
	if err != nil {
		return err
	}
	append := p.db.Appender(context.Background())
	for {
		entry, err := parse.Next()
		if err == io.EOF {
			return append.Commit()
		}
		if err != nil {
			return err
		}
		if entry != textparse.EntrySeries {
			continue
		}
		var of labels.Labels
		_, _, value := parse.Series()
		parse.Labels(&of)
		all := labels.NewBuilder(of).Set("job", one.Job).Set("instance", one.Instance).Labels()
		if _, err := append.Append(0, all, one.At*1000, value); err != nil {
			return err
		}
	}
}

// evaluate asks every rule, at one moment, in their order.
func (p *prometheus) evaluate(at int64) error {
	now := time.Unix(at, 0)
	for _, group := range p.groups {
		for _, rule := range group.Rules {
			found, err := p.ask(rule.Expr, now)
			if err != nil {
				return fmt.Errorf("%s%s: %w", rule.Alert, rule.Record, err)
			}
			if rule.Record != "" {
				err = p.record(rule.Record, found, at)
			} else {
				p.alert(rule, found, now)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *prometheus) ask(expression string, at time.Time) (promql.Vector, error) {
	query, err := p.engine.NewInstantQuery(context.Background(), p.db, nil, expression, at)
	if err != nil {
		return nil, err
	}
	defer query.Close()
	result := query.Exec(context.Background())
	if result.Err != nil {
		return nil, result.Err
	}
	found, err := result.Vector()
	return append(promql.Vector{}, found...), err
}

func (p *prometheus) record(name string, found promql.Vector, at int64) error {
	append := p.db.Appender(context.Background())
	for _, sample := range found {
		all := labels.NewBuilder(sample.Metric).Set("__name__", name).Labels()
		if _, err := append.Append(0, all, at*1000, sample.F); err != nil {
			return err
		}
	}
	return append.Commit()
}

// alert fires for what was found at every moment for as long as the rule says.
func (p *prometheus) alert(rule rulefmt.Rule, found promql.Vector, now time.Time) {
	before, pending := p.since[rule.Alert], map[string]time.Time{}
	for _, sample := range found {
		key := sample.Metric.String()
		since, ok := before[key]
		if !ok {
			since = now
		}
		pending[key] = since
		if now.Sub(since) >= time.Duration(rule.For) {
			if p.fired[rule.Alert] == nil {
				p.fired[rule.Alert] = map[string]bool{}
			}
			p.fired[rule.Alert][sample.Metric.Get("job")] = true
		}
	}
	p.since[rule.Alert] = pending
}
