package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/keyfile"
)

const home = "/home/me"

func checkVault(u string) (string, error) {
	if !strings.HasPrefix(u, "dir:") {
		return "", errors.New("no such kind of vault")
	}
	return u, nil
}

func parse(t *testing.T, text string) (*Config, error) {
	t.Helper()
	return Parse("/home/me/.config/firn/config.toml", []byte(text), Options{Home: home, CheckVault: checkVault})
}

func TestGood(t *testing.T) {
	t.Parallel()
	signer := keyfile.FormatSigningKey(make([]byte, 32))
	c, err := parse(t, strings.ReplaceAll(`
log = "firn.log"
log-level = "debug"
host = "nb"
identities = ["~/old-key.txt", "/etc/firn/key.txt", "keys/third.txt"]
signers = ["SIGNER"]

[vault.offsite]
url = "dir:~/nas/firn?delay=4h"

[set.documents]
paths = ["~/Documents", "/home/me/Pictures/", "/srv//x/../y"]
vault = "offsite"
exclude = ["*.tmp", "node_modules/"]
exclude-if-present = ["NOBACKUP"]
one-file-system = true
require-mount = ["/srv"]
compress = "zstd:19"
encrypt = "age"
recipients = ["age1xyz"]
recipient-files = ["team.txt"]
volume-size = "256 MiB"
incrementals = 11
checksum = true
no-verify-frames = true

[set]
other = {paths = ["/etc"], incrementals = 0, volume-size = 1048576}
`, "SIGNER", signer))
	if err != nil {
		t.Fatal(err)
	}
	log, eleven, none := "/home/me/.config/firn/firn.log", 11, 0
	want := &Config{
		File: "/home/me/.config/firn/config.toml", Log: &log, LogLevel: "debug", Host: "nb",
		Identities:    []string{"/home/me/old-key.txt", "/etc/firn/key.txt", "/home/me/.config/firn/keys/third.txt"},
		Signers:       []string{signer},
		Vaults:        map[string]*Vault{"offsite": {Name: "offsite", Line: 8, URL: "dir:/home/me/nas/firn?delay=4h"}},
		Notifications: map[string]*Notify{},
		Sets: map[string]*Set{
			"documents": {
				Name: "documents", Line: 11, Paths: []string{"/home/me/Documents", "/home/me/Pictures", "/srv/y"},
				Vault: "offsite", Exclude: []string{"*.tmp", "node_modules/"}, ExcludeIfPresent: []string{"NOBACKUP"},
				OneFileSystem: true, RequireMount: []string{"/srv"}, Compress: "zstd:19", Encrypt: "age",
				Recipients: []string{"age1xyz"}, RecipientFiles: []string{"/home/me/.config/firn/team.txt"},
				VolumeSize: 256 << 20, Incrementals: &eleven, Checksum: true, NoVerifyFrames: true,
			},
			"other": {Name: "other", Line: 28, Paths: []string{"/etc"}, Incrementals: &none, VolumeSize: 1 << 20},
		},
	}
	if d := cmp.Diff(want, c); d != "" {
		t.Error(d)
	}
	if c, err := parse(t, `log = ""`); err != nil || c.Log == nil || *c.Log != "" {
		t.Errorf("log switched off: %+v, %v", c, err)
	}
}

// Every fault is told at once, each with its line, in the order of the file.
func TestEveryFault(t *testing.T) {
	t.Parallel()
	_, err := parse(t, `colour = "blue"
log-level = "loud"
log = 7
identities = ["~root/key"]
signers = ["ed25519:short"]
web = "me"

[vault.cloud]
url = "s3://bucket/prefix"
[vault."a/b"]
url = "dir:relative"
class = "x"
[vault.empty]
[vault.ftp]
url = "ftp://host/"

[set.one]
paths = [
  "Documents",
  "/srv",
  "/srv/",
  "/srv/www",
]
vault = "nowhere"
exclude = "*.tmp"
exclude-if-present = ["a/b"]
one-filesystem = true
compress = "zstd:20"
encrypt = "rot13"
recipients = ["AGE-SECRET-KEY-1QQQ"]
volume-size = "64 parsecs"
incrementals = -1
schedule = "daily"
checksum = "yes"

[set.two]
exclude = ["a\nb", "x"]
encrypt = "openpgp"
[set.three]
kind = "items"
path = "tank"
[set.four]
kind = "tape"
paths = []
encrypt = "none"
recipients = ["age1x"]
volume-size = 1.5
[sets.five]
paths = ["/x"]
`)
	if failure.KindOf(err) != failure.Usage {
		t.Errorf("kind %v", failure.KindOf(err))
	}
	var f *Faults
	if !errors.As(err, &f) {
		t.Fatal(err)
	}
	want := []string{
		`1: colour: unknown key`,
		`2: log-level: must be one of debug, info, warn, error, not "loud"`,
		`3: log: must be a string, not the number 7`,
		`4: identities[0]: "~root/key": only ~ and ~/`,
		`5: signers[0]: signing key "ed25519:short"`,
		`6: web: not supported by this version yet`,
		`9: vault.cloud.url: no such kind of vault`,
		`10: vault.a/b: the name must not contain / or @`,
		`11: vault.a/b.url: "dir:relative": the directory must be absolute`,
		`12: vault.a/b.class: unknown key`,
		`13: vault.empty: has no url`,
		`15: vault.ftp.url: no such kind`,
		`19: set.one.paths[0]: "Documents" must be absolute`,
		`21: set.one.paths[2]: /srv stands there twice`,
		`22: set.one.paths[3]: /srv/www lies below /srv`,
		`24: set.one.vault: there is no [vault.nowhere]`,
		`25: set.one.exclude: must be a list of strings`,
		`26: set.one.exclude-if-present[0]: "a/b" is not the name of a file`,
		`27: set.one.one-filesystem: unknown key (did you mean one-file-system?)`,
		`28: set.one.compress: "zstd:20": must be`,
		`29: set.one.encrypt: "rot13": must be age, openpgp or none`,
		`30: set.one.recipients[0]: is a secret key`,
		`31: set.one.volume-size: must be a size such as`,
		`32: set.one.incrementals: must be a number, 0 or more, not the number -1`,
		`33: set.one.schedule: must be a schedule, "monthdays 1,7,14,21"`,
		`34: set.one.checksum: must be true or false, not the string "yes"`,
		`36: set.two: has no paths`,
		`37: set.two.exclude[0]: "a\nb" is not a pattern`,
		`38: set.two.encrypt: openpgp needs recipients`,
		`41: set.three.path: "tank" must be absolute`,
		`43: set.four.kind: unknown kind "tape"`,
		`45: set.four.encrypt: none, but there are recipients`,
		`47: set.four.volume-size: must be a size`,
		`48: sets: unknown key (did you mean set?)`,
	}
	got := strings.Split(err.Error(), "\n")
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Errorf("missing: %s", want[i])
		case i >= len(want):
			t.Errorf("too much: %s", got[i])
		case !strings.HasPrefix(got[i], "/home/me/.config/firn/config.toml:"+want[i]):
			t.Errorf("got  %s\nwant %s", got[i], want[i])
		}
	}
}

func TestSyntax(t *testing.T) {
	t.Parallel()
	for text, line := range map[string]string{"a = \n": ":1: ", "log = \"x\"\n\nlog = \"y\"\n": "", "[set\n": ":1: ", "x = \"\\q\"": ":1: "} {
		_, err := parse(t, text)
		if err == nil || failure.KindOf(err) != failure.Usage || !strings.Contains(err.Error(), line) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"set = 7", "set = [1]", "[[set]]\npaths = []", "set.x = \"y\"", "[vault]\nx = 1"} {
		if _, err := parse(t, text); err == nil || !strings.Contains(err.Error(), "section") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "config.toml")
	if c, err := Load(file, Options{}); err != nil || c.File != "" {
		t.Errorf("no file: %+v, %v", c, err)
	}
	if _, err := Load(file, Options{Must: true}); failure.KindOf(err) != failure.Usage {
		t.Errorf("a file that was asked for and is not there: %v", err)
	}
	if _, err := Load(dir, Options{}); err == nil {
		t.Error("a directory was read as a config file")
	}
	if err := os.WriteFile(file, []byte("host = \"x\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(file, Options{Must: true}); err != nil || c.Host != "x" || c.File != file {
		t.Errorf("%+v, %v", c, err)
	}
}

// What is to be locked goes to where there are locks.
func TestObjectLock(t *testing.T) {
	t.Parallel()
	load := func(vault, keys string) (*Config, error) {
		file := filepath.Join(t.TempDir(), "config.toml")
		text := "[vault.v]\nurl = \"" + vault + "\"\n[set.s]\npaths = [\"/x\"]\nvault = \"v\"\n" + keys
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return Load(file, Options{Must: true})
	}
	c, err := load("s3://b/p", "object-lock = \"180d\"\nobject-lock-mode = \"compliance\"")
	if err != nil || c.Sets["s"].ObjectLock != 180*24*time.Hour || c.Sets["s"].ObjectLockMode != LockCompliance {
		t.Errorf("%+v, %v", c, err)
	}
	for _, w := range []struct{ vault, keys, says string }{
		{"dir:/v", "object-lock = \"1d\"", "set.s.object-lock: only vaults in S3"},
		{"s3://b", "object-lock = \"0d\"", "set.s.object-lock: must be above 0"},
		{"s3://b", "object-lock = \"1d\"\nobject-lock-mode = \"x\"", "must be governance or compliance"},
		{"s3://b", "object-lock-mode = \"governance\"", "goes with object-lock"},
	} {
		if _, err := load(w.vault, w.keys); err == nil || !strings.Contains(err.Error(), w.says) {
			t.Errorf("%v: %v", w, err)
		}
	}
}

func TestAbsVaultURL(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"dir:/x?a=b": "dir:/x?a=b", "dir:~/v": "dir:/home/m%20e/v", "dir:~/v?delay=4h": "dir:/home/m%20e/v?delay=4h", "dir:~": "dir:/home/m%20e",
		"dir:rel": "dir:/c%3Fwd/rel", "dir:./r/../s?x=y": "dir:/c%3Fwd/./r/../s?x=y", "s3://b": "s3://b",
	} {
		if got, err := AbsVaultURL(in, "/home/m e", "/c?wd"); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"dir:", "dir:x", "dir:~other/x"} {
		if u, err := AbsVaultURL(in, home, ""); err == nil {
			t.Errorf("%q accepted as %q", in, u)
		}
	}
	if u, err := AbsVaultURL("dir:~/x", "", "/cwd"); err == nil {
		t.Errorf("no home, and yet %q", u)
	}
}

// The reference page describes exactly the keys that there are.
func TestReferencePage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "reference", "config.md"))
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\|")
	for heading, of := range map[string]any{"## Top level": Config{}, "## [vault.NAME]": Vault{}, "## [set.NAME]": Set{}, "## [notify.NAME]": Notify{}} {
		_, text, ok := strings.Cut(string(page), heading+"\n")
		if !ok {
			t.Errorf("the page has no %q", heading)
			continue
		}
		text, _, _ = strings.Cut(text, "\n## ")
		var described []string
		for _, m := range row.FindAllStringSubmatch(text, -1) {
			described = append(described, m[1])
		}
		keys := slices.DeleteFunc(keysOf(reflect.TypeOf(of)), func(k string) bool { return heading == "## Top level" && (k == "vault" || k == "set" || k == "notify") })
		slices.Sort(keys)
		slices.Sort(described)
		if d := cmp.Diff(keys, described); d != "" {
			t.Errorf("%s: %s", heading, d)
		}
	}
	_, text, _ := strings.Cut(string(page), "## Not yet\n")
	for _, section := range []string{"", "set"} {
		for _, k := range later(section) {
			if !strings.Contains(text, "`"+k+"`") {
				t.Errorf("the page does not say that %s is not there yet", k)
			}
		}
	}
}

// Whatever the bytes, there is either a config or a list of faults.
func FuzzParse(f *testing.F) {
	f.Add([]byte("[set.a]\npaths = [\"/x\"]\n"))
	f.Add([]byte("[set]\na.paths = [1, [2], {x=3}]\nb = {paths=[\"~\"], c.d = 1979-05-27}\n"))
	f.Add([]byte("[[vault]]\n[[vault]]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("/c", data, Options{Home: home})
		if (c == nil) == (err == nil) {
			t.Fatalf("%v, %v", c, err)
		}
		var fs *Faults
		if err != nil && (!errors.As(err, &fs) || len(fs.List) == 0) {
			t.Fatalf("not a list of faults: %v", err)
		}
		if c == nil {
			return
		}
		for _, s := range c.Sets {
			for _, p := range s.Paths {
				if !filepath.IsAbs(p) {
					t.Errorf("path %q", p)
				}
			}
		}
	})
}
