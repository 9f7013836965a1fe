package endtoend_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// blocks are the code blocks of a page, by language, as they are written there.
func blocks(t *testing.T, page string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "howto", page))
	must(t, err)
	found := map[string][]string{}
	for i, part := range strings.Split(string(text), "```") {
		if lang, code, ok := strings.Cut(part, "\n"); ok && i%2 == 1 {
			found[lang] = append(found[lang], code)
		}
	}
	return found
}

// btrsnap and btrsend as they are described: a snapshot of a user's subvolume a night, those of more than 60 days culled; then the
// user's ~/.btrsend is asked with the date, one line is read of it, and btrfs send runs into it, whose status nobody looks at.
const btrsnap = `#!/bin/bash
SNAPDIR=$1 today=$2
midnight=$(date -d "$today" +%s)
for s in "$SNAPDIR"/*/*; do
  then=$(date -d "$(basename "$s")" +%s 2>/dev/null) || continue
  if [ $((midnight - then)) -gt $((60 * 86400)) ]; then btrfs subvolume delete "$s"; fi
done
for user in me; do
  if [ -e "$SNAPDIR/$user/$today" ]; then continue; fi
  btrfs subvolume snapshot -r "$SNAPDIR/../$user" "$SNAPDIR/$user/$today" || exit 1
  if [ -x ~/.btrsend ]; then "$(dirname "$0")/btrsend" "$SNAPDIR/$user" "$today"; fi
done
`

const btrsend = `#!/bin/bash
cd "$1" || exit 1
coproc SENDER { ~/.btrsend "$2" 2>>~/btrsend.err; echo $? >>~/btrsend.codes; }
pid=$SENDER_PID
exec 5>&"${SENDER[1]}" 6<&"${SENDER[0]}"
eval "exec ${SENDER[1]}>&-"
read -r plan base <&6
echo "$2 $plan $base" >>~/btrsend.plans
case "$plan" in
c) [ -d "$2" ] || exit 1; btrfs send -q "$2" >&5 ;;
i) [ -d "$2" ] && [ -d "$base" ] || exit 1; btrfs send -q -p "$base" "$2" >&5 ;;
esac
exec 5>&-
wait "$pid"
exit 0
`

// The page docs/howto/btrsend.md: the scripts stay as they are, and firn feed answers them.
func TestBtrsendJob(t *testing.T) {
	t.Parallel()
	mnt := btrfsDisk(t)
	m := newMachine(t, t.TempDir())
	page := blocks(t, "btrsend.md")
	m.config(page["toml"][0])
	bin := m.path("bin")
	must(t, os.Mkdir(bin, 0o755))
	for name, text := range map[string]string{"bin/btrsnap": btrsnap, "bin/btrsend": btrsend, ".btrsend": page["sh"][0]} {
		must(t, os.WriteFile(m.path(name), []byte(text), 0o755))
	}
	must(t, os.Symlink(m.bin, filepath.Join(bin, "firn")))
	output(t, mnt, "btrfs -q subvolume create me && mkdir -p snapshot/me back")
	night := func(day, path string) {
		t.Helper()
		output(t, m.home, fmt.Sprintf("export HOME=%s TZ=UTC FIRN_NOW=%sT00:00:10Z PATH=%s; btrsnap %s/snapshot %[2]s", m.home, day, path, mnt))
	}
	path := bin + ":" + os.Getenv("PATH")
	cut := strings.TrimPrefix(m.standIn("btrfs", `[ "$1" = send ] || exec $real "$@"; $real "$@" | head -c 500; exit 1`), "PATH=")
	cut = strings.TrimSuffix(cut, ":"+os.Getenv("PATH")) + ":" + path

	pictures := map[string]string{}
	for d := time.Date(2023, 1, 1, 0, 0, 0, 0, time.UTC); d.Before(time.Date(2023, 4, 2, 0, 0, 0, 0, time.UTC)); d = d.AddDate(0, 0, 1) {
		day := d.Format(time.DateOnly)
		if d.Day() > 3 && d.Day()%7 > 1 && d.Day() != 21 {
			continue // most other nights are like these
		}
		output(t, mnt, fmt.Sprintf("echo %s > me/today; echo %[1]s >> me/all; head -c 20000 /dev/urandom > me/file.%d", day, d.Day()%5))
		pictures[day] = picture(t, filepath.Join(mnt, "me"))
		if day == "2023-01-14" {
			night(day, cut) // the sender dies on that night
		} else {
			night(day, path)
		}
	}
	plans, err := os.ReadFile(m.path("btrsend.plans"))
	must(t, err)
	var asked []string
	for line := range strings.Lines(string(plans)) {
		if f := strings.Fields(line); len(f) > 1 {
			asked = append(asked, strings.TrimSpace(line))
		}
	}
	want := []string{
		"2023-01-01 c", "2023-01-07 i 2023-01-01", "2023-01-14 i 2023-01-07", "2023-01-21 i 2023-01-07", "2023-02-01 i 2023-01-21",
		"2023-02-07 i 2023-02-01", "2023-02-14 i 2023-02-07", "2023-02-21 i 2023-02-14", "2023-03-01 i 2023-02-21", "2023-03-07 i 2023-03-01",
		"2023-03-14 i 2023-03-07", "2023-03-21 i 2023-03-14", "2023-04-01 i 2023-03-21",
	}
	if strings.Join(asked, "\n") != strings.Join(want, "\n") {
		t.Errorf("asked for\n%s", strings.Join(asked, "\n"))
	}
	if n := len(m.listed("home")); n != 12 {
		errs, _ := os.ReadFile(m.path("btrsend.err"))
		t.Fatalf("%d snapshots\n%s", n, errs)
	}
	codes, err := os.ReadFile(m.path("btrsend.codes"))
	must(t, err)
	if failed := strings.Count(string(codes), "1"); failed != 1 {
		t.Errorf("%d nights ended with an error, and not the one: %q", failed, codes)
	}
	m.must("restore", "home@2023-03-14", "--receive", mnt+"/back")
	if picture(t, mnt+"/back/2023-03-14") != pictures["2023-03-14"] {
		t.Error("what came back is not what there was on 14 March")
	}
	m.must("verify", "--read")
}
