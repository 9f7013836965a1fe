package endtoend_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/firn-backup/firn/internal/mustrun"
)

// config writes the machine's config file.
func (m *machine) config(text string) {
	m.t.Helper()
	dir := m.path(".config", "firn")
	must(m.t, os.MkdirAll(dir, 0o700))
	must(m.t, os.WriteFile(filepath.Join(dir, "config.toml"), []byte(text), 0o600))
}

// listed are the stored snapshots of a set.
func (m *machine) listed(set string) []struct{ Snapshot, Kind, Base, Stream, Point string } {
	m.t.Helper()
	var list []struct{ Snapshot, Kind, Base, Stream, Point string }
	must(m.t, json.Unmarshal([]byte(m.must("snapshots", set, "--json").stdout), &list))
	return list
}

// output runs a pipeline and returns what it prints.
func output(t *testing.T, dir, script string) string {
	t.Helper()
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = dir
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s\n%v\n%s", script, err, errs.String())
	}
	return string(out)
}

// picture is all that find and sha256sum tell of what is below a directory, the directory of Firn's snapshots left out.
func picture(t *testing.T, dir string) string {
	t.Helper()
	return output(t, dir, `find . -mindepth 1 ! -path './.firn*' -printf '%P %y %m %U:%G %s %l %n %T@\n' | LC_ALL=C sort
		find . -type f ! -path './.firn*' -print0 | LC_ALL=C sort -z | xargs -0r sha256sum`)
}

// change makes the state of a file system that a backup of step n stores.
func change(t *testing.T, dir string, n int) {
	t.Helper()
	output(t, dir, map[int]string{
		0: `mkdir -p d/e; head -c 3000000 /dev/urandom > big; echo a > d/a; ln d/a d/hard; ln -s a d/link; chmod 4750 d/a; touch -d 2001-02-03 d/e`,
		1: `echo b > d/b; head -c 100000 /dev/urandom | dd of=big bs=64k seek=1000000 oflag=seek_bytes conv=notrunc status=none; mv d/a d/moved`,
		2: `rm big; truncate -s 10M sparse; echo end >> sparse; chown 12:34 d/b; echo "odd name" > "$(printf 'n\344me \n x')"`,
		3: `rm -r d/e; mkdir d/new; head -c 2500000 /dev/urandom > d/new/big2`,
	}[n])
}

// standIn makes a program that comes before the real one in PATH; $real is that one.
func (m *machine) standIn(name, script string) (path string) {
	m.t.Helper()
	real, err := exec.LookPath(name)
	must(m.t, err)
	dir, err := os.MkdirTemp(m.home, "bin")
	must(m.t, err)
	must(m.t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/bash\nreal="+real+"\n"+script), 0o755))
	return "PATH=" + dir + ":" + os.Getenv("PATH")
}

// with runs firn with another environment.
func (m *machine) with(env string, args ...string) result {
	m.t.Helper()
	was := m.env
	defer func() { m.env = was }()
	m.env = append(append([]string{}, was...), env)
	return m.run(args...)
}

// killAtVolume kills firn with SIGKILL when it says that a volume is stored.
func (m *machine) killAtVolume(env string, args ...string) {
	m.t.Helper()
	cmd := m.command(m.t.Context(), append(args, "--json")...)
	cmd.Env = append(cmd.Env, env)
	out := startOneAhead(m.t, cmd) // it does not come to its end meanwhile
	for out.Scan() {
		if strings.Contains(out.Text(), `"event":"archive"`) {
			must(m.t, cmd.Process.Kill())
			break
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		m.t.Fatalf("firn %v was not killed: %v", args, err)
	}
}

// btrfsDisk mounts a btrfs of its own.
func btrfsDisk(t *testing.T) string {
	t.Helper()
	mustrun.Root(t)
	mustrun.Tool(t, "btrfs", "mkfs.btrfs", "mount", "bash")
	dir := t.TempDir()
	mnt := filepath.Join(dir, "mnt")
	must(t, os.Mkdir(mnt, 0o755))
	output(t, dir, "truncate -s 400M disk && mkfs.btrfs -q disk")
	if out, err := exec.Command("mount", "-o", "loop", filepath.Join(dir, "disk"), mnt).CombinedOutput(); err != nil {
		mustrun.Skip(t, "no loop device: "+string(out))
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", mnt).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return mnt
}

// A full and three incrementals of a real btrfs, with killed senders between, come back as they were.
func TestBtrfs(t *testing.T) {
	t.Parallel()
	mnt := btrfsDisk(t)
	m := newMachine(t, t.TempDir())
	output(t, mnt, "btrfs -q subvolume create v && mkdir back plain && btrfs -q subvolume snapshot -r v mine")
	m.config(fmt.Sprintf("[set.v]\nkind = \"btrfs\"\nsubvolume = %q\nvolume-size = \"1MiB\"\n", mnt+"/v"))
	v := filepath.Join(mnt, "v")
	local := func() []string { return strings.Fields(output(t, v, "ls .firn")) }

	var pictures []string
	for n := range 4 {
		change(t, v, n)
		switch n {
		case 1: // the sender is killed
			env := m.standIn("btrfs", `[ "$1" = send ] || exec $real "$@"; $real "$@" | head -c 50000; kill -9 $$`)
			if r := m.with(env, "backup", "v"); r.code != 1 || !strings.Contains(r.stderr, "btrfs send: signal: killed") {
				t.Errorf("exit %d: %s", r.code, r.stderr)
			}
		case 2: // it says that all is well, and its end is missing
			env := m.standIn("btrfs", `[ "$1" = send ] || exec $real "$@"; $real "$@" | head -c -5; exit 0`)
			if r := m.with(env, "backup", "v"); r.code != 1 || !strings.Contains(r.stderr, "the stream is cut") {
				t.Errorf("exit %d: %s", r.code, r.stderr)
			}
		case 3: // it fails after two volumes; the snapshot stays for the next run, which goes on with it
			env := m.standIn("btrfs", `[ "$1" = send ] || exec $real "$@"
				count() { find $HOME/.local/share/firn/vault/archives -name '0*' | wc -l; }
				before=$(count); $real "$@" | head -c 2300000
				while [ $(count) -lt $((before+2)) ]; do :; done; exit 1`)
			if r := m.with(env, "backup", "v"); r.code != 1 {
				t.Errorf("exit %d: %s", r.code, r.stderr)
			}
			if len(local()) != 2 {
				t.Errorf("with an attempt under way there are %v", local())
			}
		}
		if n == 0 {
			// nothing yet
		} else if got := len(m.listed("v")); got != n {
			t.Fatalf("%d snapshots after %d backups and a failed one", got, n)
		}
		r := m.must("backup", "v")
		if n == 3 && !strings.Contains(r.stderr, "stored already") {
			t.Errorf("it did not go on: %s", r.stderr)
		}
		pictures = append(pictures, picture(t, v))
		if len(local()) != 1 {
			t.Errorf("after backup %d there are %v", n, local())
		}
	}
	list := m.listed("v")
	if len(list) != 5 || list[0].Kind != "full" || list[4].Kind != "incremental" || list[1].Base != list[0].Snapshot {
		t.Fatalf("%+v", list) // what was interrupted is one, and what has changed since another
	}
	m.must("restore", "v", "--receive", mnt+"/back")
	for i, s := range list {
		if got := picture(t, filepath.Join(mnt, "back", filepath.Base(s.Point))); got != pictures[min(i, 3)] {
			t.Errorf("snapshot %d is not as it was:\n%s\nwant\n%s", i, got, pictures[min(i, 3)])
		}
	}
	m.must("verify", "--read")
	m.must("restore", "v@"+list[1].Snapshot, "--to", "files/")
	output(t, m.home, fmt.Sprintf("mkdir %[1]s/back2 && cat files/* | btrfs receive -q %[1]s/back2 && ls %[1]s/back2 | grep -c firn- | grep -x 2", mnt))

	// Without Firn, and with the catalog lost.
	m.shell(fmt.Sprintf("for v in .local/share/firn/vault/archives/v-*/%s/0*.btrfs.zst.age; do age -d -i .config/firn/key.txt $v | zstd -dc; done | btrfs receive -q %s/plain", list[0].Snapshot, mnt))
	if picture(t, filepath.Join(mnt, "plain", filepath.Base(list[0].Point))) != pictures[0] {
		t.Error("what plain tools read is something else")
	}
	must(t, os.RemoveAll(m.path(".local/state/firn")))
	m.must("recover", "dir:"+m.path(".local/share/firn/vault"))
	m.must("backup", "v")
	if list = m.listed("v"); len(list) != 6 || list[5].Kind != "incremental" {
		t.Errorf("after recovery: %+v", list)
	}

	// When the base is gone a full one is made, and nobody else's snapshot is.
	output(t, v, "btrfs -q subvolume delete .firn/*")
	if r := m.must("backup", "v"); !strings.Contains(r.stderr, "is not on this machine any more: a full snapshot is made") {
		t.Errorf("%s", r.stderr)
	}
	output(t, mnt, "btrfs subvolume show mine")
}

// A receiver never sees the end of a stream that is damaged in the vault.
func TestBtrfsDamaged(t *testing.T) {
	t.Parallel()
	mnt := btrfsDisk(t)
	m := newMachine(t, t.TempDir())
	output(t, mnt, "btrfs -q subvolume create v && mkdir back")
	change(t, mnt+"/v", 0)
	m.config(fmt.Sprintf("[set.v]\nkind = \"btrfs\"\nsubvolume = %q\nencrypt = \"none\"\ncompress = \"none\"\n", mnt+"/v"))
	m.must("backup", "v")
	output(t, m.vault(), `chmod u+w $(find . -name '000001-*'); printf x | dd of="$(find . -name '000001-*')" bs=1 seek=2000000 conv=notrunc status=none`)
	if r := m.run("restore", "v", "--receive", mnt+"/back"); r.code != 13 {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
	if out := output(t, mnt+"/back", "for s in */; do btrfs subvolume show $s | grep 'Received UUID' || true; done"); strings.Contains(strings.ReplaceAll(out, "Received UUID: 		-", ""), "UUID") {
		t.Errorf("a damaged stream was received to its end: %s", out)
	}
	if r := m.run("restore", "v", "--to", "file"); r.code != 13 {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
	if out := output(t, m.home, "ls -A"); strings.Contains(out, "file") || strings.Contains(out, "tmp~") {
		t.Errorf("something is left: %s", out)
	}
}

// Snapshots that others make, and those that stay for keep-local.
func TestBtrfsLocalSnapshots(t *testing.T) {
	t.Parallel()
	mnt := btrfsDisk(t)
	m := newMachine(t, t.TempDir())
	output(t, mnt, "btrfs -q subvolume create v && btrfs -q subvolume create other && mkdir snaps")
	m.config(fmt.Sprintf(`[set.theirs]
kind = "btrfs"
subvolume = "%[1]s/v"
snapshot = "existing"
snapshot-match = ["%[1]s/snaps/v.*"]
[set.mine]
kind = "btrfs"
subvolume = "%[1]s/v"
keep-local = "3d"
incrementals = 1
`, mnt))
	if r := m.run("backup", "theirs"); r.code != 1 || !strings.Contains(r.stderr, "there is no snapshot to send") {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
	snap := func(n int) {
		output(t, mnt, fmt.Sprintf("echo %d > v/a; btrfs -q subvolume snapshot -r v snaps/v.%d; btrfs -q subvolume snapshot -r other snaps/v.other%d; btrfs -q subvolume snapshot v snaps/v.w%d", n, n, n, n))
	}
	snap(1)
	m.must("backup", "theirs")
	if r := m.must("backup", "theirs"); !strings.Contains(r.stderr, "nothing new") {
		t.Errorf("%s", r.stderr)
	}
	output(t, mnt, "while [ $(date +%s) = $(stat -c %W snaps/v.1) ]; do :; done") // btrfs keeps seconds
	snap(2)
	m.must("backup", "theirs")
	if list := m.listed("theirs"); len(list) != 2 || list[1].Kind != "incremental" || list[1].Point != mnt+"/snaps/v.2" {
		t.Errorf("%+v", list)
	}
	for day := range 8 {
		m.now = fmt.Sprintf("2026-11-%02dT01:00:00Z", day+1)
		switch {
		case day%4 == 0:
			m.must("backup", "mine")
		case day%2 == 0:
			m.must("backup", "mine", "--local")
		default: // it is not due, and gets its snapshot of the day, one
			m.must("run")
			m.must("run")
		}
	}
	// The last backup was on the 5th; the 6th, 7th and 8th are younger than three days.
	got := output(t, mnt, "ls v/.firn | sed 's/.*-2026/2026/; s/Z-.*/Z/'")
	if want := "2026-11-05T01.00.00Z\n2026-11-06T01.00.00Z\n2026-11-07T01.00.00Z\n2026-11-08T01.00.00Z\n"; got != want {
		t.Errorf("local snapshots:\n%s", got)
	}
	if n := strings.Count(output(t, mnt, "ls snaps"), "v."); n != 6 {
		t.Errorf("%d of 6 snapshots of others are left", n)
	}
	if list := m.listed("mine"); len(list) != 2 || list[1].Kind != "incremental" {
		t.Errorf("%+v", list)
	}
}
