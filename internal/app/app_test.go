package app

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/config"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/snapshot"
)

// home is a machine for one test: a home directory, a working directory, an environment.
type home struct {
	t   *testing.T
	dir string // the home directory, also the working directory
	env map[string]string
	now time.Time
}

func newHome(t *testing.T) *home {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &home{t: t, dir: dir, env: map[string]string{"HOME": dir}, now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
}

func (h *home) write(name, text string) string {
	h.t.Helper()
	file := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return file
}

func (h *home) mkdir(names ...string) {
	h.t.Helper()
	for _, n := range names {
		if err := os.MkdirAll(filepath.Join(h.dir, n), 0o755); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *home) options() Options {
	return Options{
		LookupEnv:  func(k string) (string, bool) { v, ok := h.env[k]; return v, ok },
		Now:        func() time.Time { return h.now },
		WorkingDir: h.dir,
	}
}

func (h *home) open() *App {
	h.t.Helper()
	a, err := New(h.options())
	if err != nil {
		h.t.Fatal(err)
	}
	a.Host = "nb"
	h.t.Cleanup(func() {
		if err := a.Close(); err != nil {
			h.t.Error(err)
		}
	})
	return a
}

func (h *home) put(a *App, sets ...catalog.Set) {
	h.t.Helper()
	db, err := a.Catalog(h.t.Context(), true)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, s := range sets {
		if s.ID == "" {
			s.ID = newID(h.t)
		}
		s.Label, s.Kind, s.Created = s.Name, "tree", h.now
		if err := db.PutSet(h.t.Context(), s); err != nil {
			h.t.Fatal(err)
		}
	}
}

func newID(t *testing.T) string {
	t.Helper()
	f, err := os.Open("/dev/urandom")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	id, err := snapshot.NewID(time.Unix(1e9, 0), f)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestPaths(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	a := h.open()
	if a.Paths.Catalog != h.dir+"/.local/state/firn/catalog.db" || a.Paths.Key != h.dir+"/.config/firn/key.txt" ||
		a.Paths.DefaultVault != h.dir+"/.local/share/firn/vault" || a.Paths.Cache != h.dir+"/.cache/firn" {
		t.Errorf("%+v", a.Paths)
	}
	h.env["XDG_STATE_HOME"], h.env["XDG_CONFIG_HOME"] = "/var/lib", "relative/is/ignored"
	h.env["XDG_DATA_HOME"] = "/data"
	a = h.open()
	if a.Paths.Catalog != "/var/lib/firn/catalog.db" || a.Paths.Config != h.dir+"/.config/firn/config.toml" || a.DefaultVaultURL() != "dir:/data/firn/vault" {
		t.Errorf("%+v", a.Paths)
	}
	// All set, no home directory is needed.
	h.env = map[string]string{"XDG_STATE_HOME": "/s", "XDG_CONFIG_HOME": "/c", "XDG_DATA_HOME": "/d", "XDG_CACHE_HOME": "/k"}
	if p, err := findPaths(func(k string) (string, bool) { v, ok := h.env[k]; return v, ok }); err != nil || p.Catalog != "/s/firn/catalog.db" {
		t.Errorf("%+v, %v", p, err)
	}
}

// Flag before config before default.
func TestCatalogPath(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.write(".config/firn/config.toml", "catalog = \"c.db\"\nhost = \"h\"\n")
	a, err := New(h.options())
	if err != nil || a.Paths.Catalog != h.dir+"/.config/firn/c.db" || a.Host != "h" {
		t.Errorf("%v, %v", a, err)
	}
	o := h.options()
	o.Catalog = "d.db"
	if a, err = New(o); err != nil || a.Paths.Catalog != h.dir+"/d.db" {
		t.Errorf("%v, %v", a, err)
	}
	o.NoConfig, o.Catalog = true, ""
	if a, err = New(o); err != nil || a.Paths.Catalog != h.dir+"/.local/state/firn/catalog.db" {
		t.Errorf("%v, %v", a, err)
	}
}

func TestNoCatalog(t *testing.T) {
	t.Parallel()
	a := newHome(t).open()
	if _, err := a.Catalog(t.Context(), false); !errors.Is(err, ErrNoCatalog) || failure.KindOf(err) != failure.NotFound {
		t.Error(err)
	}
	if _, err := os.Stat(a.Paths.State); !errors.Is(err, os.ErrNotExist) {
		t.Error("looking made something")
	}
	if _, err := a.Catalog(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(a.Paths.Catalog)
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("the catalog is for others too: %v, %v", info.Mode(), err)
	}
}

func TestOwn(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.write(".config/firn/config.toml", "[vault.nas]\nurl = \"dir:~/link/v?delay=1h\"\n")
	h.mkdir("real/v")
	if err := os.Symlink("real", filepath.Join(h.dir, "link")); err != nil {
		t.Fatal(err)
	}
	own := h.open().Own()
	for _, want := range []string{".local/state/firn", ".cache/firn", ".local/share/firn/vault", "link/v", "real/v"} {
		if !slices.Contains(own, filepath.Join(h.dir, want)) {
			t.Errorf("%s is missing in %q", want, own)
		}
	}
	// The key file is not among them: it is small, and whoever wants it in the backup may have it.
	if slices.ContainsFunc(own, func(p string) bool { return strings.Contains(p, ".config") }) {
		t.Error(own)
	}
}

func TestStores(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	notices := []string{}
	o := h.options()
	o.Notice = func(s string) { notices = append(notices, s) }
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	def := a.DefaultVaultURL()
	if _, err := a.OpenStore(ctx, def, false); !errors.Is(err, ErrNoVault) || failure.KindOf(err) != failure.NotFound {
		t.Errorf("the default vault is there before it was made: %v", err)
	}
	for range 2 { // made once
		if _, err := a.OpenStore(ctx, def, true); err != nil {
			t.Fatal(err)
		}
	}
	if len(notices) != 1 {
		t.Errorf("%q", notices)
	}
	other, err := a.VaultURL("dir:other")
	if err != nil || other != "dir:"+h.dir+"/other" {
		t.Fatalf("%q, %v", other, err)
	}
	if _, err := a.OpenStore(ctx, other, true); !errors.Is(err, ErrNoVault) {
		t.Errorf("a vault that is not the default one was made by the way: %v", err)
	}
	if _, err := a.CreateVault(ctx, other); err != nil {
		t.Fatal(err)
	}
	if _, err := a.CreateVault(ctx, other); failure.KindOf(err) != failure.Usage {
		t.Errorf("made twice: %v", err)
	}
	for _, url := range []string{"s3://b", "glacier://eu-west-1/", "ftp://x", "x:y", "dir:/x?z=1"} {
		if _, err := a.VaultURL(url); failure.KindOf(err) != failure.Usage {
			t.Errorf("%s: %v", url, err)
		}
		if _, err := a.OpenStore(ctx, url, true); failure.KindOf(err) != failure.Usage {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestTargets(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.mkdir("Documents", "Pictures", "work/Documents", "etc", "-x", "we@rd\nname", "vault")
	h.write("file.txt", "")
	h.write(".config/firn/config.toml", `
[vault.nas]
url = "dir:~/vault"
[set.Pictures]
paths = ["~/Pictures"]
vault = "nas"
[set.system]
paths = ["/etc", "/usr/local/etc"]
[set.etc]
paths = ["/etc"]
`)
	a := h.open()
	root := func(p string) string { return filepath.Join(h.dir, p) }
	// What each argument becomes on a machine without any snapshot.
	for arg, want := range map[string]struct{ name, root, vault string }{
		"Documents":                   {"Documents", root("Documents"), a.DefaultVaultURL()},
		"./Documents/":                {"Documents", root("Documents"), a.DefaultVaultURL()},
		root("work/Documents"):        {"Documents", root("work/Documents"), a.DefaultVaultURL()},
		"file.txt":                    {"file.txt", root("file.txt"), a.DefaultVaultURL()},
		".":                           {filepath.Base(h.dir), h.dir, a.DefaultVaultURL()},
		"/":                           {"root", "/", a.DefaultVaultURL()},
		"./-x":                        {"_x", root("-x"), a.DefaultVaultURL()},
		"we@rd\nname":                 {"we_rd_name", root("we@rd\nname"), a.DefaultVaultURL()},
		"Pictures":                    {"Pictures", "", "dir:" + root("vault")}, // the configured one
		"./Pictures":                  {"Pictures", "", "dir:" + root("vault")}, // its only path
		"etc":                         {"etc", "", a.DefaultVaultURL()},         // although ./etc is here
		"system":                      {"system", "", a.DefaultVaultURL()},
		"work/../Documents":           {"Documents", root("Documents"), a.DefaultVaultURL()},
		filepath.Join(h.dir, "vault"): {"vault", root("vault"), a.DefaultVaultURL()},
	} {
		got, err := a.Targets(t.Context(), []string{arg}, "")
		if err != nil {
			t.Errorf("%q: %v", arg, err)
			continue
		}
		s := got[0].Set
		if s.Name != want.name || s.Root != want.root || s.Vault != want.vault || !got[0].New || s.Host != "nb" || !snapshot.ValidID(s.ID) ||
			len(got[0].Config.Paths) == 0 || (want.root != "" && got[0].Config.Paths[0] != want.root) {
			t.Errorf("%q: %+v", arg, got[0])
		}
	}
	if got, err := a.Targets(t.Context(), nil, ""); err != nil || len(got) != 3 || got[0].Set.Name != "Pictures" {
		t.Errorf("all configured sets: %+v, %v", got, err)
	}
	// Errors, by kind.
	for _, x := range []struct {
		args []string
		name string
		kind failure.Kind
		is   error
	}{
		{[]string{"nothere"}, "", failure.NotFound, ErrNoSet},
		{[]string{"./nothere"}, "", failure.NotFound, os.ErrNotExist},
		{[]string{"./etc"}, "", failure.Usage, ErrNameTaken}, // by the configured set of /etc
		{[]string{""}, "", failure.Usage, nil},
		{[]string{"Documents", "./Documents"}, "", failure.Usage, nil},
		{[]string{"Documents", "work/Documents"}, "", failure.Usage, nil},
		{[]string{"Documents", "file.txt"}, "both", failure.Usage, nil},
		{[]string{"Documents"}, "a/b", failure.Usage, nil},
		{[]string{"Documents"}, "system", failure.Usage, ErrNameTaken},
	} {
		_, err := a.Targets(t.Context(), x.args, x.name)
		if err == nil || failure.KindOf(err) != x.kind || (x.is != nil && !errors.Is(err, x.is)) {
			t.Errorf("%q: %v (kind %d)", x.args, err, failure.KindOf(err))
		}
	}
	if _, err := newHome(t).open().Targets(t.Context(), nil, ""); failure.KindOf(err) != failure.Usage {
		t.Errorf("nothing configured, nothing named: %v", err)
	}
}

func TestTargetsKnown(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.mkdir("Documents", "work/Documents", "Music", "sub/known")
	h.write(".config/firn/config.toml", "[set.conf]\npaths = [\"/x\"]\n[set.Music]\npaths = [\"~/Music\"]\n")
	a := h.open()
	root := func(p string) string { return filepath.Join(h.dir, p) }
	docs := catalog.Set{ID: newID(t), Name: "Documents", Host: "nb", Vault: "dir:/v", Root: root("work/Documents")}
	music := catalog.Set{ID: newID(t), Name: "Music", Host: "nb", Vault: "dir:/v", Root: root("Music")}
	known := catalog.Set{ID: newID(t), Name: "known", Host: "nb", Vault: "dir:/v", Root: root("sub/known")}
	conf := catalog.Set{ID: newID(t), Name: "conf", Host: "nb", Vault: "dir:/old"}
	theirs := catalog.Set{ID: newID(t), Name: "theirs", Host: "pi", Vault: "dir:/v", Root: "/x"}
	h.put(a, docs, music, known, conf, theirs)
	for arg, want := range map[string]catalog.Set{
		"work/Documents":         docs,
		root("work/Documents"):   docs,
		"known":                  known,
		"sub/../sub/known":       known,
		"conf":                   conf,
		"Music":                  music, // was made for the path, is configured for the same now
		filepath.Join("Music/."): music,
	} {
		got, err := a.Targets(t.Context(), []string{arg}, "")
		if err != nil || got[0].Set.ID != want.ID || got[0].New {
			t.Errorf("%q: %+v, %v", arg, got, err)
		}
	}
	got, err := a.Targets(t.Context(), []string{"known"}, "")
	if err != nil || got[0].Set.Vault != "dir:/v" || got[0].Config.Paths[0] != known.Root {
		t.Errorf("an implicit set keeps its vault and its path: %+v, %v", got, err)
	}
	got, err = a.Targets(t.Context(), []string{"conf"}, "")
	if err != nil || got[0].Set.Vault != a.DefaultVaultURL() {
		t.Errorf("a configured set goes where the config says: %+v, %v", got, err)
	}
	for arg, is := range map[string]error{"./Documents": ErrNameTaken, "Documents": ErrAmbiguous, "theirs": ErrNoSet} {
		_, err := a.Targets(t.Context(), []string{arg}, "")
		if !errors.Is(err, is) {
			t.Errorf("%q: %v", arg, err)
		}
	}
	if got, err := a.Targets(t.Context(), []string{"known"}, "known"); err == nil {
		t.Errorf("a name that is another path's: %+v", got)
	}
	h.mkdir("same")
	same := catalog.Set{ID: newID(t), Name: "same", Host: "nb", Vault: "dir:/v", Root: root("same")}
	h.put(a, same)
	if got, err := a.Targets(t.Context(), []string{"same"}, "same"); err != nil || got[0].Set.ID != same.ID {
		t.Errorf("the same command again: %+v, %v", got, err)
	}
	if got, err := a.Targets(t.Context(), []string{"./Documents"}, "private"); err != nil || got[0].Set.Name != "private" || got[0].Set.Root != root("Documents") {
		t.Errorf("given another name: %+v, %v", got, err)
	}
}

func TestFindSet(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	a := h.open()
	if _, err := a.FindSet(t.Context(), "x"); !errors.Is(err, ErrNoSet) || !errors.Is(err, ErrNoCatalog) || failure.KindOf(err) != failure.NotFound {
		t.Errorf("no catalog: %v", err)
	}
	mine := catalog.Set{ID: newID(t), Name: "both", Host: "nb", Vault: "dir:/v", Root: filepath.Join(h.dir, "d")}
	his := catalog.Set{ID: newID(t), Name: "both", Host: "pi", Vault: "dir:/v"}
	only := catalog.Set{ID: newID(t), Name: "only", Host: "pi", Vault: "dir:/v"}
	at := catalog.Set{ID: newID(t), Name: "we@home", Host: "nb", Vault: "dir:/v"}
	two1 := catalog.Set{ID: newID(t), Name: "two", Host: "pi", Vault: "dir:/v"}
	two2 := catalog.Set{ID: newID(t), Name: "two", Host: "pc", Vault: "dir:/v"}
	h.put(a, mine, his, only, at, two1, two2)
	for arg, want := range map[string]catalog.Set{
		"both": mine, "nb/both": mine, "pi/both": his, "only": only, "pi/only": only, "we@home": at, "./d": mine,
		filepath.Join(h.dir, "d"): mine, mine.ID: mine, strings.ToLower(his.ID): his, "pc/two": two2,
	} {
		got, err := a.FindSet(t.Context(), arg)
		if err != nil || got.ID != want.ID {
			t.Errorf("%q: %+v, %v", arg, got, err)
		}
	}
	if _, err := a.FindSet(t.Context(), "two"); failure.KindOf(err) != failure.Usage || !strings.Contains(err.Error(), "pc/two, pi/two") {
		t.Errorf("ambiguous: %v", err)
	}
	for _, arg := range []string{"none", "xx/both", "./e", newID(t), ""} {
		if _, err := a.FindSet(t.Context(), arg); failure.KindOf(err) != failure.NotFound {
			t.Errorf("%q: %v", arg, err)
		}
	}
	for arg, want := range map[string]string{"both@2026-11-01": mine.ID, "we@home": at.ID, "we@home@latest": at.ID, "pi/both@latest": his.ID} {
		set, when, err := a.FindSetWhen(t.Context(), arg)
		if err != nil || set.ID != want || (arg == "both@2026-11-01") == when.Latest {
			t.Errorf("%q: %+v, %+v, %v", arg, set, when, err)
		}
	}
	for _, arg := range []string{"both@soon", "both@"} {
		if _, _, err := a.FindSetWhen(t.Context(), arg); failure.KindOf(err) != failure.Usage {
			t.Errorf("bad date: %v", err)
		}
	}
	if _, _, err := a.FindSnapshot(t.Context(), "both"); failure.KindOf(err) != failure.NotFound {
		t.Errorf("no snapshot yet: %v", err)
	}
}

// What the config file accepts as compression can be made, and nothing else can.
func TestCompressSpecs(t *testing.T) {
	t.Parallel()
	a := newHome(t).open()
	for _, spec := range []string{"zstd", "zstd:1", "zstd:19", "zstd:0", "zstd:20", "zstd:", "zstd:3x", "zstd:03", "gzip", "gzip:9", "gzip:10", "none", "none:1", "rot13", "bzip2:10", ":3"} {
		_, made := a.Compressor(&config.Set{Compress: spec}, "")
		_, read := config.Parse("c", []byte("[set.s]\npaths = [\"/x\"]\ncompress = \""+spec+"\"\n"), config.Options{})
		if (made == nil) != (read == nil) {
			t.Errorf("%q: the config file says %v, the codec %v", spec, read, made)
		}
	}
}

// Two first runs of one command at once are runs of one set.
func TestAddSet(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.mkdir("Documents")
	a, b := h.open(), h.open()
	first, err := a.Targets(t.Context(), []string{"./Documents"}, "")
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.Targets(t.Context(), []string{"./Documents"}, "")
	if err != nil {
		t.Fatal(err)
	}
	one, err := a.AddSet(t.Context(), first[0].Set)
	if err != nil || one.ID != first[0].Set.ID {
		t.Fatalf("%+v, %v", one, err)
	}
	if two, err := b.AddSet(t.Context(), second[0].Set); err != nil || two.ID != one.ID {
		t.Errorf("the second has set %s and not %s: %v", two.ID, one.ID, err)
	}
	other := second[0].Set
	other.Root = filepath.Join(h.dir, "elsewhere")
	if _, err := b.AddSet(t.Context(), other); failure.KindOf(err) != failure.Usage {
		t.Errorf("another path of the same name: %v", err)
	}
}
