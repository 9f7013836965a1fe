package endtoend_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/firn-backup/firn/internal/mustrun"
)

// zfsPool makes a pool on a file, served by zfs-fuse. There is one such daemon a machine: whoever has the lock starts and ends it.
func zfsPool(t *testing.T) (pool, mnt string) {
	t.Helper()
	mustrun.Root(t)
	mustrun.Tool(t, "zfs", "zpool", "zfs-fuse", "bash")
	if _, err := os.Stat("/dev/fuse"); err != nil {
		mustrun.Skip(t, "no /dev/fuse")
	}
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "firn-zfs-fuse.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	must(t, err)
	must(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
	t.Cleanup(func() { lock.Close() })
	if exec.Command("zpool", "list").Run() != nil {
		daemon := exec.Command("zfs-fuse", "-n")
		must(t, daemon.Start())
		t.Cleanup(func() {
			_ = daemon.Process.Signal(syscall.SIGTERM)
			_ = daemon.Wait()
		})
		output(t, "/", "for i in $(seq 600); do zpool list >/dev/null 2>&1 && exit 0; read -t 0.1 <> <(:) || true; done; exit 1")
	}
	dir := t.TempDir()
	pool, mnt = fmt.Sprintf("firn%d", os.Getpid()), filepath.Join(dir, "mnt")
	output(t, dir, fmt.Sprintf("truncate -s 256M disk && zpool create -m none %[1]s %[2]s/disk && zfs create -o mountpoint=%[3]s -o atime=off %[1]s/d", pool, dir, mnt))
	t.Cleanup(func() { stubborn(t, "zpool destroy -f "+pool) })
	return pool, mnt
}

// stubborn repeats a command for a while: zfs-fuse takes its time to let go of what was mounted.
func stubborn(t *testing.T, command string) {
	t.Helper()
	output(t, "/", "for i in $(seq 100); do "+command+" 2>/dev/null && exit 0; read -t 0.1 <> <(:) || true; done; "+command)
}

// A full and three incrementals of a real ZFS, with killed senders between, come back as they were.
func TestZFS(t *testing.T) {
	t.Parallel()
	pool, mnt := zfsPool(t)
	m := newMachine(t, t.TempDir())
	m.config(fmt.Sprintf(`[set.d]
kind = "zfs"
dataset = "%[1]s/d"
volume-size = "1MiB"
[set.theirs]
kind = "zfs"
dataset = "%[1]s/d"
snapshot = "existing"
snapshot-match = ["autosnap_*"]
intermediates = true
[set.all]
kind = "zfs"
dataset = "%[1]s/d"
recursive = true
incrementals = 3
`, pool))
	local := func() string {
		return output(t, "/", fmt.Sprintf("zfs list -H -t snapshot -o name -r %s/d | sed 's/.*@//' | sort -u", pool))
	}
	output(t, "/", fmt.Sprintf("zfs snapshot %s/d@byhand", pool))
	var pictures []string
	for n := range 4 {
		change(t, mnt, n)
		switch n {
		case 1:
			env := m.standIn("zfs", `[ "$1" = send ] || exec $real "$@"; $real "$@" | head -c 50000; kill -9 $$`)
			if r := m.with(env, "backup", "d"); r.code != 1 || !strings.Contains(r.stderr, "zfs send: signal: killed") {
				t.Errorf("exit %d: %s", r.code, r.stderr)
			}
		case 2:
			env := m.standIn("zfs", `[ "$1" = send ] || exec $real "$@"; $real "$@" | head -c -312; exit 0`)
			if r := m.with(env, "backup", "d"); r.code != 1 || !strings.Contains(r.stderr, "the stream is cut") {
				t.Errorf("exit %d: %s", r.code, r.stderr)
			}
		case 3: // firn itself is killed
			env := m.standIn("zfs", `[ "$1" = send ] || exec $real "$@"; $real "$@" | { head -c 2300000; exec <&-; read -t 8 <> <(:); }`)
			m.killAtVolume(env, "backup", "d")
		}
		r := m.must("backup", "d")
		if n == 3 && !strings.Contains(r.stderr, "stored already") {
			t.Errorf("it did not go on: %s", r.stderr)
		}
		pictures = append(pictures, picture(t, mnt))
		if got := strings.Fields(local()); len(got) != 2 || got[0] != "byhand" {
			t.Errorf("after backup %d there are %v", n, got)
		}
	}
	list := m.listed("d")
	if len(list) != 5 || list[0].Kind != "full" || list[4].Kind != "incremental" {
		t.Fatalf("%+v", list)
	}
	for i, s := range []int{0, 2, 4} {
		back := filepath.Join(t.TempDir(), "back")
		target := fmt.Sprintf("%s/back%d", pool, i)
		m.must("restore", "d@"+list[s].Snapshot, "--receive", target)
		output(t, "/", fmt.Sprintf("zfs set mountpoint=%s %s && { zfs mount %[2]s 2>/dev/null || true; }", back, target))
		if got, want := picture(t, back), pictures[min(s, 3)]; got != want {
			t.Errorf("snapshot %d is not as it was:\n%s\nwant\n%s", s, got, want)
		}
		stubborn(t, "zfs destroy -rf "+target)
	}
	m.must("verify", "--read")
	if r := m.run("restore", "d", "--receive", pool+"/d"); r.code != 1 {
		t.Errorf("over what is there: exit %d: %s", r.code, r.stderr)
	}
	m.must("restore", "d", "--to", "files/")
	output(t, m.home, fmt.Sprintf("for f in files/*; do zfs receive -uF %s/plain < $f; done; zfs destroy -r %[1]s/plain", pool))
	zfsTheirs(t, m, pool, mnt)
	zfsRecursive(t, m, pool, mnt)
	zfsMonthly(t, m, pool, mnt)
	if got := output(t, "/", fmt.Sprintf("zfs list -H -t snapshot -o name %s/d@byhand", pool)); !strings.Contains(got, "byhand") {
		t.Error("a snapshot that was made by hand is gone")
	}
}

// zfsTheirs sends snapshots that others make, those in between too.
func zfsTheirs(t *testing.T, m *machine, pool, mnt string) {
	t.Helper()
	for n := range 3 {
		output(t, mnt, fmt.Sprintf("echo %d > theirs; zfs snapshot %s/d@autosnap_%[1]d", n, pool))
		if n != 1 {
			m.must("backup", "theirs")
		}
		output(t, "/", fmt.Sprintf("s=$(zfs get -Hp -o value creation %s/d@autosnap_%d); while [ $(date +%%s) -le $s ]; do :; done", pool, n))
	}
	if r := m.must("backup", "theirs"); !strings.Contains(r.stderr, "nothing new") {
		t.Errorf("%s", r.stderr)
	}
	if r := exec.Command("zfs", "destroy", pool+"/d@autosnap_2").Run(); r == nil {
		t.Error("what the next incremental builds on is not held")
	}
	output(t, "/", fmt.Sprintf("zfs destroy %s/d@autosnap_0", pool)) // this is not needed any more
	m.must("restore", "theirs", "--receive", pool+"/theirs")
	got := output(t, "/", fmt.Sprintf("zfs list -H -t snapshot -o name -r %s/theirs | sed 's/.*@//'", pool))
	if got != "autosnap_0\nautosnap_1\nautosnap_2\n" && !strings.Contains(got, "autosnap_1") {
		t.Errorf("received: %s", got)
	}
	stubborn(t, "zfs destroy -rf "+pool+"/theirs")
}

// zfsRecursive sends a dataset with one below it.
func zfsRecursive(t *testing.T, m *machine, pool, mnt string) {
	t.Helper()
	output(t, "/", fmt.Sprintf("zfs create %s/d/sub && echo below > %s/sub/file", pool, mnt))
	m.must("backup", "all")
	output(t, "/", fmt.Sprintf("echo more > %s/sub/file2; zfs create %s/d/sub/deep; echo deep > %[1]s/sub/deep/file", mnt, pool))
	m.must("backup", "all")
	if list := m.listed("all"); len(list) != 2 || list[1].Kind != "incremental" {
		t.Errorf("%+v", list)
	}
	back := filepath.Join(t.TempDir(), "back")
	m.must("restore", "all", "--receive", pool+"/all")
	output(t, "/", fmt.Sprintf("zfs set mountpoint=%s %s/all; zfs mount -a || true; zfs mount | grep -q %[2]s/all/sub/deep", back, pool))
	if got := output(t, back, "cat sub/file sub/file2 sub/deep/file"); got != "below\nmore\ndeep\n" {
		t.Errorf("received %q", got)
	}
	stubborn(t, "zfs destroy -rf "+pool+"/all")
}

// zfsMonthly is the page docs/howto/zfs-monthly.md: the job of every month, run every few days of half a year.
func zfsMonthly(t *testing.T, m *machine, pool, mnt string) {
	t.Helper()
	m.config(strings.ReplaceAll(blocks(t, "zfs-monthly.md")["toml"][0], "tank/timemachine", pool+"/d"))
	defer func() { m.now = "" }()
	var months []string
	for _, day := range []string{"2026-01-15", "2026-01-31", "2026-02-01", "2026-02-20", "2026-03-04", "2026-04-01", "2026-05-01", "2026-05-02", "2026-06-01"} {
		output(t, mnt, "echo "+day+" > month")
		m.now = day + "T02:00:00Z"
		m.must("run")
		months = nil
		for _, s := range m.listed("timemachine") {
			if s.Kind != "full" {
				t.Errorf("%+v", s)
			}
			months = append(months, s.Point[strings.Index(s.Point, "-2026-")+1:][:7])
		}
		if n := len(months); n > 3 {
			t.Errorf("on %s there are %v", day, months)
		}
	}
	if got := strings.Join(months, " "); got != "2026-04 2026-05 2026-06" {
		t.Errorf("kept: %s", got)
	}
	m.must("restore", "timemachine@2026-05-01", "--receive", pool+"/october")
	output(t, "/", fmt.Sprintf("zfs set mountpoint=%s/october %s/october && { zfs mount %[2]s/october 2>/dev/null || true; }", m.home, pool))
	if got := output(t, m.home, "cat october/month"); got != "2026-05-01\n" {
		t.Errorf("of May there is %q", got)
	}
	stubborn(t, "zfs destroy -rf "+pool+"/october")
}
