package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// keys makes the keys that the other tools encrypt to.
func (b *bench) keys() error {
	if err := os.MkdirAll(filepath.Join(b.dir, "gpg"), 0o700); err != nil {
		return err
	}
	_, err := b.shell(`age-keygen -o age.key 2>/dev/null && age-keygen -y age.key > age.pub &&
		gpg --batch --quiet --passphrase '' --quick-gen-key bench@example.com rsa3072 encr never &&
		gpgconf --kill all`)
	return err
}

// fresh removes what Firn keeps, so that the next backup is a first one, and has
// the disk take note before that: no run pays for what was removed before it.
func (b *bench) fresh() error {
	for _, d := range []string{"data", "state", "cache", "out.age"} {
		if err := os.RemoveAll(filepath.Join(b.dir, d)); err != nil {
			return err
		}
	}
	_, err := b.run("sync")
	return err
}

func (b *bench) backup(args ...string) (measure, error) {
	if err := b.fresh(); err != nil {
		return measure{}, err
	}
	return b.run(b.firn, append([]string{"backup", "--quiet"}, args...)...)
}

// backups times first backups beside pipelines of the usual tools.
func (b *bench) backups(runs int, slow bool) error {
	const pipe = `tar -c -C / "${PWD#/}/mixed" | zstd -3 -T0 -q | age -R age.pub > out.age`
	if _, err := b.shell(`cat $(find mixed -type f) > /dev/null; sync`); err != nil { // warm the page cache
		return err
	}
	var plain, verified, other, synced []time.Duration
	var peak, size, otherSize int64
	for range runs {
		m, err := b.backup("--no-verify-frames", "mixed")
		if err != nil {
			return err
		}
		plain, peak = append(plain, m.wall), max(peak, m.peak)
		if err := b.fresh(); err != nil {
			return err
		}
		if m, err = b.shell(pipe); err != nil {
			return err
		}
		other = append(other, m.wall)
		// What the pipeline leaves in memory, Firn has on the disk when it says that it is done.
		last, err := b.run("sync", "out.age")
		if err != nil {
			return err
		}
		synced = append(synced, m.wall+last.wall)
		if otherSize, err = sizeOf(filepath.Join(b.dir, "out.age")); err != nil {
			return err
		}
		if m, err = b.backup("mixed"); err != nil {
			return err
		}
		verified, peak = append(verified, m.wall), max(peak, m.peak)
		if size, err = sizeOf(filepath.Join(b.dir, "data")); err != nil {
			return err
		}
	}
	b.row("backup --no-verify-frames / tar, zstd -3 -T0, age", secs(median(plain)), secs(median(other)), medianRatio(plain, other), "≤ 1.10")
	b.row("backup / tar, zstd -3 -T0, age", secs(median(verified)), secs(median(other)), medianRatio(verified, other), "≤ 1.30")
	b.row("backup --no-verify-frames / the same, then sync", secs(median(plain)), secs(median(synced)), medianRatio(plain, synced), "")
	b.row("backup / the same, then sync", secs(median(verified)), secs(median(synced)), medianRatio(verified, synced), "")
	b.row("size of the vault / of the pipeline's file", mib(size), mib(otherSize), float64(size)/float64(otherSize), "")
	if slow {
		for _, p := range []struct{ what, script string }{
			{"backup / tar, gzip -7, gpg", `tar -c mixed | gzip -7 | gpg --batch -q --trust-model always -z 0 -r bench@example.com -e > out.gpg; rm out.gpg`},
			{"backup / tar cj", `tar -cjf out.tbz mixed; rm out.tbz`},
		} {
			m, err := b.shell(p.script)
			if err != nil {
				return err
			}
			b.row(p.what, secs(median(verified)), secs(m.wall), median(verified).Seconds()/m.wall.Seconds(), "")
		}
	}
	b.row("backup: peak memory", fmt.Sprintf("%d MiB", peak>>20), "", 0, "< 200 MiB")
	return nil
}

// sizeOf is how many bytes the files at and below path have.
func sizeOf(path string) (size int64, err error) {
	err = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	return size, err
}

func mib(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }

// oneFile tells how much of the vault the restore of one file of 1 MiB reads.
func (b *bench) oneFile() error {
	var out bytes.Buffer
	cmd := exec.Command(b.firn, "restore", "mixed", filepath.Join(b.dir, "mixed/photos/one-mebibyte.bin"), "--to", filepath.Join(b.dir, "back"), "--json")
	cmd.Env, cmd.Stdout, cmd.Stderr = b.env, &out, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("restore of one file: %w", err)
	}
	read, err := bytesRead(out.Bytes())
	if err != nil {
		return err
	}
	b.row("restore of one file of 1 MiB: bytes read of the vault", fmt.Sprintf("%.2f MiB", float64(read)/(1<<20)), "", 0, "< 4 MiB")
	return nil
}

// bytesRead finds the number in the summary event.
func bytesRead(events []byte) (int64, error) {
	d := json.NewDecoder(bytes.NewReader(events))
	for d.More() {
		var e struct {
			Event string `json:"event"`
			Data  struct {
				BytesRead int64 `json:"bytes_read"`
			} `json:"data"`
		}
		if err := d.Decode(&e); err != nil {
			return 0, fmt.Errorf("events of restore: %w", err)
		}
		if e.Event == "summary" {
			return e.Data.BytesRead, nil
		}
	}
	return 0, fmt.Errorf("restore told no summary")
}

// noChange times a run over a tree that has not changed.
func (b *bench) noChange(files, runs int) error {
	dir := filepath.Join(b.dir, "many")
	if err := many(dir, files); err != nil {
		return err
	}
	time.Sleep(100 * time.Millisecond) // younger files would be looked into
	if _, err := b.backup("many"); err != nil {
		return err
	}
	const find = `find many -printf '%p %y %m %U %G %s %T@ %C@ %i\n' > /dev/null`
	var firn, other []time.Duration
	var peak int64
	for range max(runs, 5) {
		m, err := b.run(b.firn, "backup", "--quiet", "many")
		if err != nil {
			return err
		}
		firn, peak = append(firn, m.wall), max(peak, m.peak)
		if m, err = b.shell(find); err != nil {
			return err
		}
		other = append(other, m.wall)
	}
	what := fmt.Sprintf("no change in %s files / find -printf", thousands(files))
	b.row(what, secs(median(firn)), secs(median(other)), medianRatio(firn, other), "≤ 2.00")
	b.row("no change: peak memory", fmt.Sprintf("%d MiB", peak>>20), "", 0, "< 200 MiB")
	return nil
}

func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return strings.TrimPrefix(s, ",")
}
