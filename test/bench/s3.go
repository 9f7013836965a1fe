package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/firn-backup/firn/test/s3server"
)

// s3Tool is a program that puts a file into a bucket and gets it back.
type s3Tool struct {
	name, program string
	prepare       string // once
	up, down      string
	back          string // what down makes
}

// s3Tools are those that are on this machine; the others are said to be missing.
func (b *bench) s3Tools(s *s3server.Server, file string) []s3Tool {
	firn := b.firn + " archive "
	vault := " 's3://bench-bucket/firn?class=STANDARD' "
	all := []s3Tool{
		{"firn", b.firn, "", firn + "upload --quiet" + vault + file, firn + "retrieve --quiet" + vault + "name:" + file + " -o back.firn", "back.firn"},
		{"aws s3 cp", "aws", "", "aws s3 cp --only-show-errors " + file + " s3://bench-bucket/aws/" + file, "aws s3 cp --only-show-errors s3://bench-bucket/aws/" + file + " back.aws", "back.aws"},
		{"rclone copyto", "rclone", "", "rclone copyto --s3-no-check-bucket " + file + " bench:bench-bucket/rclone/" + file, "rclone copyto bench:bench-bucket/rclone/" + file + " back.rclone", "back.rclone"},
		{"restic", "restic", "restic -q init", "restic -q backup --no-cache --compression off " + file, "restic -q restore --no-cache latest --target back.restic", "back.restic"},
	}
	b.env = append(b.env, s.Env()...)
	b.env = append(b.env, "AWS_CA_BUNDLE=", "RCLONE_CONFIG=/dev/null", "RCLONE_CONFIG_BENCH_TYPE=s3", "RCLONE_CONFIG_BENCH_PROVIDER=Other", "RCLONE_CONFIG_BENCH_ENV_AUTH=true",
		"RCLONE_CONFIG_BENCH_ENDPOINT="+s.URL, "RCLONE_CONFIG_BENCH_REGION="+s3server.Region,
		"RESTIC_REPOSITORY=s3:"+s.URL+"/bench-bucket/restic", "RESTIC_PASSWORD=bench")
	var here []s3Tool
	for _, t := range all {
		if _, err := exec.LookPath(t.program); err != nil {
			fmt.Fprintf(os.Stderr, "bench: there is no %s: not beside it\n", t.program)
			continue
		}
		here = append(here, t)
	}
	return here
}

// s3 times one file's way into a bucket of versitygw on loopback and back, beside the programs that people use. Each run measures
// all of them in turn, and Firn is compared with the fastest of that run.
func (b *bench) s3(megabytes, runs int) error {
	const file = "object.bin"
	s, err := s3server.Versity(context.Background(), filepath.Join(b.dir, "s3"))
	if errors.Is(err, s3server.ErrMissing) {
		fmt.Fprintf(os.Stderr, "bench: %v: no rows of S3\n", err)
		return nil
	}
	if err != nil {
		return err
	}
	defer s.Stop()
	if err := os.Mkdir(filepath.Join(s.Root, "bench-bucket"), 0o755); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(b.dir, file), int64(megabytes)<<20, func(w *bufio.Writer) {
		noise(w, rand.NewChaCha8([32]byte{11}), int64(megabytes)<<20)
	}); err != nil {
		return err
	}
	tools := b.s3Tools(s, file)
	times := map[string][]time.Duration{} // by direction and tool
	var peak int64
	for i := range runs {
		for k := range tools {
			t := tools[(i+k)%len(tools)] // nobody is always first
			if t.prepare != "" {
				if _, err := b.shell(t.prepare); err != nil {
					return err
				}
			}
			if _, err := b.run("sync"); err != nil {
				return err
			}
			up, err := b.shell(t.up)
			if err != nil {
				return err
			}
			if _, err := b.run("sync"); err != nil {
				return err
			}
			down, err := b.shell(t.down)
			if err != nil {
				return err
			}
			times["up "+t.name], times["down "+t.name] = append(times["up "+t.name], up.wall), append(times["down "+t.name], down.wall)
			if t.name == "firn" {
				peak = max(peak, up.peak, down.peak)
				if _, err := b.shell("cmp " + file + " " + t.back); err != nil {
					return err
				}
			}
			if _, err := b.shell("rm -rf " + t.back + " s3/bench-bucket/* s3.versions/* state"); err != nil {
				return err
			}
		}
	}
	for _, way := range []string{"up", "down"} {
		b.s3Rows(way, tools, times, megabytes)
	}
	b.row("archive upload and retrieve, S3: peak memory", fmt.Sprintf("%d MiB", peak>>20), "", 0, "< 200 MiB")
	return nil
}

// s3Rows are those of one direction.
func (b *bench) s3Rows(way string, tools []s3Tool, times map[string][]time.Duration, megabytes int) {
	rate := func(name string) string {
		d := median(append([]time.Duration(nil), times[way+" "+name]...))
		return fmt.Sprintf("%s, %.0f MB/s", secs(d), float64(megabytes)*1.048576/d.Seconds())
	}
	firn := times[way+" firn"]
	fastest := make([]time.Duration, len(firn))
	what := map[string]string{"up": "upload", "down": "download"}[way] + fmt.Sprintf(" of %s MiB, S3 on loopback", thousands(megabytes))
	var beside []string
	for _, t := range tools {
		if t.name == "firn" {
			continue
		}
		other := times[way+" "+t.name]
		for i, d := range other {
			if fastest[i] == 0 || d < fastest[i] {
				fastest[i] = d
			}
		}
		beside = append(beside, t.name)
		b.row(what+": speed, of "+t.name, rate("firn"), rate(t.name), medianRatio(other, firn), "")
	}
	if len(beside) > 0 {
		b.row(what+": speed, of the fastest of "+strings.Join(beside, ", "), rate("firn"), "", medianRatio(fastest, firn), "≥ 0.80")
	}
}
