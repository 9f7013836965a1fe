package endtoend_test

import (
	"encoding/binary"
	"encoding/csv"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/mustrun"
)

// leftBtrsend is what btrsend leaves: archives in a vault, gzip -4 and gpg, and its database.
func leftBtrsend(t *testing.T) *machine {
	t.Helper()
	mustrun.Tool(t, "gpg", "gzip", "python3", "bash")
	home, err := os.MkdirTemp("", "fe") // short: gpg's agent has a socket below it
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(home) })
	m := newMachine(t, home)
	m.shell(`mkdir -m 700 .gnupg; gpg --batch -q --passphrase '' --quick-gen-key me@example.com rsa2048 encr never
		cat >row.py <<'END'
import sqlite3, sys
db = sqlite3.connect(".btrsend.db")
db.execute("CREATE TABLE IF NOT EXISTS btrsend (id integer primary key autoincrement, arn varchar(1000) not null, date datetime not null, size integer not null, parent date)")
if sys.argv[1] == "delete":
    db.execute("DELETE FROM btrsend WHERE date = ?", (sys.argv[2],))
else:
    db.execute("INSERT INTO btrsend (arn, date, size, parent) VALUES (?, ?, ?, ?)", (sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] if len(sys.argv) > 4 else None))
db.commit()
END`)
	t.Cleanup(func() { m.shell("gpgconf --kill all") })
	m.must("vault", "create", "dir:"+m.path("v"))
	m.config(fmt.Sprintf("[vault.Backup]\nurl = \"dir:%s\"\n[set.home]\nkind = \"stream\"\npolicy = \"btrsend\"\nvault = \"Backup\"\n", m.path("v")))
	return m
}

// sent is what btrsend.rkt did with a stream: the archive's id is written down with the date and what it builds on.
func (m *machine) sent(stream, date, parent string) {
	m.t.Helper()
	desc := fmt.Sprintf("btrsend backup for %s (complete)", date)
	if parent != "" {
		desc = fmt.Sprintf("btrsend backup for %s (parent = %s)", date, parent)
	}
	m.shell(fmt.Sprintf("cat %s | gzip -4 | gpg -q --batch --trust-model always --encrypt --recipient me@example.com > a.gz.gpg", stream))
	id := strings.TrimSpace(m.must("archive", "upload", "Backup", "a.gz.gpg", "--description", desc).stdout)
	m.shell(fmt.Sprintf("python3 row.py %s %s $(stat -c %%s a.gz.gpg) %s; rm a.gz.gpg", id, date, parent))
}

// forget is a machine whose catalog is lost.
func (m *machine) forget() { m.shell("rm -rf .local/state .cache") }

func (m *machine) archives() string { return output(m.t, m.home, "find v -type f | LC_ALL=C sort") }

// A chain that btrsend began goes on with firn feed, on a real btrfs, and comes back from both parts; after the catalog was lost, too.
func TestAdoptedBtrsend(t *testing.T) {
	t.Parallel()
	mnt := btrfsDisk(t)
	m := leftBtrsend(t)
	output(t, mnt, "btrfs -q subvolume create me && mkdir -p snap back1 back2 back3 back4")
	pictures := map[string]string{}
	night := func(n int, date string) {
		t.Helper()
		change(t, mnt+"/me", n)
		output(t, mnt, "btrfs -q subvolume snapshot -r me snap/"+date)
		pictures[date] = picture(t, mnt+"/snap/"+date)
	}
	night(0, "2023-01-01")
	output(t, mnt, fmt.Sprintf("btrfs -q send -f %s/full snap/2023-01-01", m.home))
	m.sent("full", "2023-01-01", "")
	night(1, "2023-01-07")
	output(t, mnt, fmt.Sprintf("btrfs -q send -p snap/2023-01-01 -f %s/inc snap/2023-01-07", m.home))
	m.sent("inc", "2023-01-07", "2023-01-01")
	m.forget()
	before := m.archives()

	m.now = "2023-01-08T00:00:10Z"
	if r := m.must("adopt", "btrsend", ".btrsend.db"); !strings.Contains(r.stderr, "1 set with 2 snapshots new to them") {
		t.Errorf("adopted: %s", r.stderr)
	}
	if r := m.must("adopt", "btrsend", ".btrsend.db"); !strings.Contains(r.stderr, "1 set with 0 snapshots new to them") {
		t.Errorf("adopted again: %s", r.stderr)
	}
	if r := m.must("feed", "home", "2023-01-08"); r.stdout != "" {
		t.Errorf("wanted on the 8th: %s", r.stdout)
	}
	m.must("verify", "--read")
	m.must("restore", "home", "--receive", mnt+"/back1")
	if picture(t, mnt+"/back1/2023-01-07") != pictures["2023-01-07"] || m.archives() != before {
		t.Error("what btrsend stored does not come back, or something was uploaded")
	}

	night(2, "2023-01-14")
	m.now = "2023-01-14T00:00:10Z"
	feed := m.command(t.Context(), "feed", "home", "2023-01-14")
	output(t, mnt, fmt.Sprintf("btrfs -q send -p snap/2023-01-07 -f %s/next snap/2023-01-14", m.home))
	in, err := os.Open(m.path("next"))
	must(t, err)
	defer in.Close()
	feed.Stdin = in
	if out, err := feed.Output(); err != nil || string(out) != "i 2023-01-07\n" {
		t.Fatalf("feed: %q, %v", out, err)
	}
	whole := func(back string) {
		t.Helper()
		m.must("restore", "home", "--receive", mnt+"/"+back)
		if picture(t, mnt+"/"+back+"/2023-01-14") != pictures["2023-01-14"] {
			t.Error("the mixed chain does not come back")
		}
		m.must("verify", "--read")
		m.must("restore", "home", "--to", "files-"+back+"/")
		output(t, m.home, fmt.Sprintf("set -- files-%s/*; test $# = 3; cmp $1 full; cmp $2 inc; cmp $3 next", back))
	}
	whole("back2")
	ids := m.listed("home")

	// Somebody else's archive, described like one of these, is not built on, and stands for none of them.
	m.must("archive", "upload", "Backup", "full", "--description", "btrsend backup for 2023-01-10 (complete)", "--name", "planted")

	// The catalog is lost: the vault tells all of it. The database, given once more, is nothing new.
	m.forget()
	m.must("recover", "Backup")
	if !slices.Equal(m.listed("home"), ids) {
		t.Errorf("recovered %v and not %v", m.listed("home"), ids)
	}
	if r := m.must("adopt", "btrsend", ".btrsend.db"); !strings.Contains(r.stderr, "1 set with 0 snapshots new to them") {
		t.Errorf("adopted after the recovery: %s", r.stderr)
	}
	whole("back3")

	// The other way round: adopted first, by the database, then recovered.
	m.forget()
	m.must("adopt", "btrsend", ".btrsend.db")
	m.must("recover", "Backup")
	if !slices.Equal(m.listed("home"), ids) {
		t.Errorf("recovered %v and not %v", m.listed("home"), ids)
	}
	whole("back4")
	if r := m.must("feed", "home", "2023-01-15"); r.stdout != "" {
		t.Errorf("wanted on the 15th: %s", r.stdout)
	}
}

// A set of kind btrfs goes on where btrsend stopped, on the snapshots that btrsnap makes.
func TestAdoptedBtrfsSet(t *testing.T) {
	t.Parallel()
	mnt := btrfsDisk(t)
	m := leftBtrsend(t)
	output(t, mnt, "btrfs -q subvolume create me && mkdir -p snap back")
	today := time.Now().UTC()
	date := today.Format(time.DateOnly)
	change(t, mnt+"/me", 0)
	output(t, mnt, fmt.Sprintf("btrfs -q subvolume snapshot -r me snap/%s && btrfs -q send -f %s/full snap/%[1]s", date, m.home))
	m.sent("full", date, "")
	m.forget()
	m.config(fmt.Sprintf("[vault.Backup]\nurl = \"dir:%s\"\n[set.home]\nkind = \"btrfs\"\nsnapshot = \"existing\"\nsnapshot-match = [%q]\npolicy = \"btrsend\"\nvault = \"Backup\"\n",
		m.path("v"), mnt+"/snap/*"))
	m.must("adopt", "btrsend", ".btrsend.db")
	before := m.archives()
	if r := m.must("backup", "home", "--force"); !strings.Contains(r.stderr, "nothing new") || m.archives() != before {
		t.Errorf("the snapshot that btrsend had sent was sent again: %s", r.stderr)
	}
	change(t, mnt+"/me", 1)
	want := picture(t, mnt+"/me")
	output(t, mnt, "btrfs -q subvolume snapshot -r me snap/later")
	if r := m.must("backup", "home", "--force", "--dry-run"); !strings.Contains(r.stderr+r.stdout, "incremental") {
		t.Errorf("planned: %s", r.stderr)
	}
	if r := m.must("backup", "home", "--force"); !strings.Contains(r.stderr, "incremental snapshot") {
		t.Errorf("stored: %s", r.stderr)
	}
	m.must("restore", "home", "--receive", mnt+"/back")
	if picture(t, mnt+"/back/later") != want {
		t.Error("it does not come back")
	}

	// A snapshot of that name that was made later is another one: nothing is built on it.
	m.forget()
	m.must("adopt", "btrsend", ".btrsend.db")
	output(t, mnt, fmt.Sprintf("btrfs -q subvolume delete snap/%s snap/later && btrfs -q subvolume snapshot -r me snap/2001-02-03", date))
	m.shell(fmt.Sprintf("python3 row.py delete %s; python3 row.py lost 2001-02-03 77", date))
	m.forget()
	m.must("adopt", "btrsend", ".btrsend.db")
	if r := m.must("backup", "home", "--force"); !strings.Contains(r.stderr, "full snapshot") || !strings.Contains(r.stderr, "not on this machine any more") {
		t.Errorf("stored: %s", r.stderr)
	}
}

// btrfsStream is a whole stream of btrfs send of an empty change.
func btrfsStream(date, parent string) string {
	uuid := func(s string) []byte { return []byte(s + "-uuid!")[:16] }
	var b []byte
	attr := func(kind uint16, v []byte) {
		b = binary.LittleEndian.AppendUint16(b, kind)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(v)))
		b = append(b, v...)
	}
	out := []byte("btrfs-stream\x00\x01\x00\x00\x00")
	command := func(kind uint16) {
		c := binary.LittleEndian.AppendUint32(nil, uint32(len(b)))
		c = binary.LittleEndian.AppendUint16(c, kind)
		sum := ^crc32.Update(^uint32(0), crc32.MakeTable(crc32.Castagnoli), append(append(slices.Clone(c), 0, 0, 0, 0), b...))
		out = append(binary.LittleEndian.AppendUint32(append(out, c...), sum), b...)
		b = nil
	}
	attr(15, []byte(date))
	attr(1, uuid(date))
	attr(2, make([]byte, 8))
	kind := uint16(1)
	if parent != "" {
		kind = 2
		attr(20, uuid(parent))
		attr(21, make([]byte, 8))
	}
	command(kind)
	command(21)
	return string(out)
}

// Whatever day btrsend is left on, firn feed gives the answers from then on that the original program gives with the same state, and
// as many archives are left after each of them: those of the original expire with Firn's own.
func TestAdoptedOracle(t *testing.T) {
	t.Parallel()
	file, err := os.Open(filepath.Join("..", "..", "internal", "plan", "testdata", "btrsend-oracle.csv"))
	must(t, err)
	defer file.Close()
	rows, err := csv.NewReader(file).ReadAll()
	must(t, err)
	m := leftBtrsend(t)
	m.env = []string{"TZ=America/Los_Angeles"} // dates are what they are called
	const left = 165                           // the first chain is nearly expired
	for _, row := range rows[1 : left+1] {
		switch row[1] {
		case "c", "i":
			must(t, os.WriteFile(m.path("s"), []byte(btrfsStream(row[0], row[2])), 0o600))
			m.now = row[0] + "T12:00:00Z"
			m.sent("s", row[0], row[2])
		}
	}
	m.forget()
	m.must("adopt", "btrsend", ".btrsend.db")
	for _, row := range rows[left+1 : left+40] {
		day, kind, base, active := row[0], row[1], row[2], row[5]
		m.now = day + "T12:00:00Z"
		cmd := m.command(t.Context(), "feed", "home", day)
		cmd.Stdin = strings.NewReader(btrfsStream(day, base))
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", day, err)
		}
		want := map[string]string{"none": "", "c": "c\n", "i": "i " + base + "\n"}[kind]
		if string(out) != want {
			t.Fatalf("%s: answered %q and not %q", day, out, want)
		}
		if got := fmt.Sprint(len(m.listed("home"))); got != active {
			t.Fatalf("%s: %s snapshots in force and not %s", day, got, active)
		}
	}
	if n := strings.Count(m.must("archive", "list", "Backup", "--stored-by", "btrsend", "--format", "csv").stdout, "btrsend-2023-0"); n != 11 {
		t.Errorf("%d archives of btrsend are left", n)
	}
	m.must("verify", "--read")
}
