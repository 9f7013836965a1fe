// Command bench times Firn beside what it replaces, side by side in one run on
// generated data, and prints a table of ratios. It builds the firn binary of
// this tree, needs tar, zstd, age, gzip, bzip2, gpg and find, and awscli for the rows of
// firn serve glacier. The rows of S3 need versitygw, and stand beside those of awscli, rclone and restic that are there. It leaves
// nothing behind. Ratios of one run on one machine can be compared; seconds cannot.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	size := flag.Int("size", 1100, "megabytes of mixed data")
	files := flag.Int("files", 100_000, "files of the no-change run")
	bands := flag.Int("bands", 2000, "sparse bands of 8 MiB that are hashed")
	runs := flag.Int("runs", 3, "runs of the quick rows, of which the median counts")
	slow := flag.Bool("slow", true, "run the slow pipelines too (tar cj, gzip -7 | gpg)")
	dir := flag.String("dir", "", "where to work (default: a new directory in the temporary one)")
	only := flag.String("only", "", "only the rows of one group: backup, bands (tree hashing), s3, glacier (the server)")
	flag.Parse()
	if err := run(*dir, *only, *size, *files, *bands, *runs, *slow); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run's working place.
type bench struct {
	dir  string
	firn string
	env  []string
	rows [][]string
}

// step makes rows of a group, or what those of its group need.
type step struct {
	group string
	run   func() error
}

func run(dir, only string, size, files, bands, runs int, slow bool) error {
	work, err := os.MkdirTemp(dir, "firn-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	b := &bench{dir: work, firn: filepath.Join(work, "firn")}
	build := exec.Command("go", "build", "-trimpath", "-o", b.firn, "./cmd/firn")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build firn: %w\n%s", err, out)
	}
	b.env = append(os.Environ(), "HOME="+work, "XDG_CONFIG_HOME="+work+"/config", "XDG_DATA_HOME="+work+"/data",
		"XDG_STATE_HOME="+work+"/state", "XDG_CACHE_HOME="+work+"/cache", "GNUPGHOME="+work+"/gpg")
	steps := []step{
		{"backup", func() error { return mixed(filepath.Join(work, "mixed"), int64(size)<<20) }},
		{"backup", b.keys},
		{"backup", func() error { return b.backups(runs, slow) }},
		{"backup", b.oneFile},
		{"backup", func() error { return b.noChange(files, runs) }},
		{"bands", func() error { return b.bands(bands, runs) }},
		{"s3", func() error { return b.s3(size, runs) }},
		{"glacier", func() error { return b.glacier(size, runs) }},
	}
	if only != "" {
		steps = slices.DeleteFunc(steps, func(s step) bool { return s.group != only })
	}
	if _, err := exec.LookPath("aws"); err != nil {
		fmt.Fprintln(os.Stderr, "bench: there is no awscli: no rows of firn serve glacier")
		steps = slices.DeleteFunc(steps, func(s step) bool { return s.group == "glacier" })
	}
	for _, s := range steps {
		if err := s.run(); err != nil {
			return err
		}
	}
	table([]string{"what", "Firn", "beside", "ratio", "budget"}, b.rows)
	return nil
}

// measure is one finished run of a command.
type measure struct {
	wall, cpu time.Duration
	peak      int64 // bytes, of the largest process
}

func (b *bench) run(name string, args ...string) (measure, error) {
	cmd := exec.Command(name, args...)
	cmd.Env, cmd.Dir = b.env, b.dir
	var errs strings.Builder
	cmd.Stderr = &errs
	began := time.Now()
	err := cmd.Run()
	m := measure{wall: time.Since(began)}
	if s := cmd.ProcessState; s != nil {
		m.cpu = s.UserTime() + s.SystemTime()
		m.peak = peakOf(s)
	}
	if err != nil {
		return m, fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, errs.String())
	}
	return m, nil
}

// peakOf is the peak memory of a process that has ended, in bytes.
func peakOf(s *os.ProcessState) int64 {
	if ru, ok := s.SysUsage().(*syscall.Rusage); ok {
		return ru.Maxrss << 10
	}
	return 0
}

func (b *bench) shell(script string) (measure, error) {
	return b.run("bash", "-o", "pipefail", "-c", script)
}

func (b *bench) row(what string, firn, beside string, ratio float64, budget string) {
	r := "–"
	if ratio > 0 {
		r = fmt.Sprintf("%.2f", ratio)
	}
	b.rows = append(b.rows, []string{what, firn, beside, r, budget})
	fmt.Fprintf(os.Stderr, "%-58s %-22s %-22s %6s  %s\n", what, firn, beside, r, budget)
}

func median(ds []time.Duration) time.Duration {
	slices.Sort(ds)
	return ds[len(ds)/2]
}

// medianRatio pairs the runs in the order they were made, so that a machine
// that slows down meanwhile slows both.
func medianRatio(a, b []time.Duration) float64 {
	rs := make([]float64, len(a))
	for i := range a {
		rs[i] = a[i].Seconds() / b[i].Seconds()
	}
	slices.Sort(rs)
	return rs[len(rs)/2]
}

func secs(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func table(head []string, rows [][]string) {
	line := func(cells []string) { fmt.Println("| " + strings.Join(cells, " | ") + " |") }
	line(head)
	line(slices.Repeat([]string{"---"}, len(head)))
	for _, r := range rows {
		line(r)
	}
}
