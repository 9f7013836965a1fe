package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/backup"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/config"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/keyfile"
	"github.com/firn-backup/firn/internal/progress"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/units"
)

// backupFlags are what the command line says of a backup.
type backupFlags struct {
	name, vault        string
	dryRun             string
	full, checksum     bool
	allowEmpty, force  bool
	exclude, ifPresent []string
	oneFS, noVerify    bool
	requireMount       []string
	compress, encrypt  string
	recipients, files  []string
	volumeSize         string
	parallel           int
	limit              limitFlag
	asOf               time.Time // of what is filed for another day
	stdin, local       bool
	startOver          bool
	stream             func(context.Context, app.Target, *backup.StreamOptions) (goOn bool, err error) // what else is to be said of a stream
}

func newBackup(c *command) *cobra.Command {
	var f backupFlags
	cmd := &cobra.Command{
		Use:   "backup [SET | PATH]…",
		Short: "Back up sets, or paths",
		Long: `Back up the sets that are named, or all of the config file. A path that is no set
becomes one, named after it, into the default vault. The first backup of a set
is a full snapshot; later ones store what is new or changed. What an interrupted
run has stored is not stored again: the same command goes on.`,
		Example: example("firn backup ~/Documents", "firn backup documents photos", "firn backup --dry-run ~/Documents",
			"firn backup --vault dir:/mnt/nas/firn --name nb-home /home"),
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return c.backup(cmd, args, f) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.name, "name", "", "`NAME` of the set made for the path (default: the path's last element)")
	fs.StringVar(&f.vault, "vault", "", "`VAULT` that a new set goes to: a name of the config file, or a URL (dir:/path)")
	fs.BoolVar(&f.stdin, "stdin", false, "back up what comes in through the pipe, as a set of kind stream")
	fs.BoolVar(&f.local, "local", false, "make a local snapshot only, of a set with keep-local, and give up those that are older than that")
	fs.BoolVar(&f.full, "full", false, "store everything, as the first snapshot of a new chain")
	fs.BoolVar(&f.checksum, "checksum", false, "read and hash every file, whatever its size and times say")
	fs.BoolVar(&f.allowEmpty, "allow-empty", false, "believe that a directory is meant to be empty, or to have lost most of its files")
	fs.BoolVar(&f.force, "force", false, "back up although the set's min-interval is not over")
	fs.BoolVar(&f.startOver, "start-over", false, startOverText)
	fs.StringVarP(&f.dryRun, "dry-run", "n", "", "say what would be done; `full`: read, compress and encrypt it all too; nothing is sent or recorded")
	fs.Lookup("dry-run").NoOptDefVal = "plan"
	fs.StringArrayVar(&f.exclude, "exclude", nil, "leave out what fits the gitignore `PATTERN`; repeatable")
	fs.StringArrayVar(&f.ifPresent, "exclude-if-present", nil, "leave out the contents of directories that hold a file of that `NAME`; repeatable")
	fs.BoolVar(&f.oneFS, "one-file-system", false, "do not go into other file systems")
	fs.StringArrayVar(&f.requireMount, "require-mount", nil, "fail unless something is mounted at `DIR`; repeatable")
	fs.StringVar(&f.compress, "compress", "", "zstd[:1-19], gzip[:1-9], bzip2[:1-9] or none (default zstd)")
	fs.StringVar(&f.encrypt, "encrypt", "", "age, openpgp or none (default age)")
	fs.StringArrayVarP(&f.recipients, "recipient", "r", nil, "encrypt to `KEY`: an age or SSH public key, or an OpenPGP key's name; repeatable (default: the key file's)")
	fs.StringArrayVar(&f.files, "recipient-file", nil, "encrypt to the keys in `FILE`; repeatable")
	fs.StringVar(&f.volumeSize, "volume-size", "", "`SIZE` of volumes before compression (default 1GiB)")
	fs.BoolVar(&f.noVerify, "no-verify-frames", false, "do not decode and compare what was compressed before it is sent")
	fs.IntVar(&f.parallel, "parallel", 0, "parts sent at a time (default 2)")
	f.limit.add(cmd)
	fromEnv(cmd, "compress", "encrypt", "volume-size", "parallel", "vault")
	return cmd
}

func (c *command) backup(cmd *cobra.Command, args []string, f backupFlags) error {
	ctx := cmd.Context()
	if f.dryRun != "" && f.dryRun != "plan" && f.dryRun != "full" {
		return usage("--dry-run=%s: must be --dry-run or --dry-run=full", f.dryRun)
	}
	if f.parallel < 0 || f.parallel > 64 {
		return usage("--parallel %d: must be 1 to 64", f.parallel)
	}
	a, err := c.open(cmd)
	if err != nil {
		return err
	}
	targets, err := c.backupTargets(ctx, a, args, f)
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range targets {
		if err := applyFlags(cmd, a, &t, f); err != nil {
			errs = append(errs, err)
			break
		}
		early, err := c.tooEarly(ctx, a, t, f)
		if err == nil && !early {
			err = c.backupSet(ctx, a, t, f)
		}
		if err != nil && len(targets) > 1 {
			err = fmt.Errorf("set %s: %w", t.Set.Name, err)
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return c.together(errs)
}

// applyFlags lets the command line go before the config file.
func applyFlags(cmd *cobra.Command, a *app.App, t *app.Target, f backupFlags) error {
	s := t.Config
	has := func(name string) bool { return cmd.Flags().Changed(name) }
	s.Exclude = append(s.Exclude, f.exclude...)
	s.ExcludeIfPresent = append(s.ExcludeIfPresent, f.ifPresent...)
	if has("require-mount") {
		s.RequireMount = append(s.RequireMount, f.requireMount...)
	}
	s.OneFileSystem = s.OneFileSystem || f.oneFS
	s.NoVerifyFrames = s.NoVerifyFrames || f.noVerify
	s.Checksum = s.Checksum || f.checksum
	if f.compress != "" {
		s.Compress = f.compress
	}
	if f.encrypt != "" {
		s.Encrypt = f.encrypt
	}
	if has("recipient") || has("recipient-file") {
		s.Recipients, s.RecipientFiles = f.recipients, f.files
	}
	if f.volumeSize != "" {
		n, err := units.ParseSize(f.volumeSize)
		if err != nil {
			return usage("--volume-size: %v", err)
		}
		s.VolumeSize = n
	}
	if err := config.CheckVolumeSize(s.VolumeSize); err != nil {
		return usage("--volume-size: %v", err)
	}
	if f.vault != "" {
		url, err := a.VaultURL(f.vault)
		if err != nil {
			return err
		}
		t.Set.Vault = url
	}
	return nil
}

// backupTree backs up a set of kind tree.
func (c *command) backupTree(ctx context.Context, a *app.App, t app.Target, f backupFlags) error {
	if f.dryRun != "" {
		return c.backupDry(ctx, a, t, f)
	}
	warn := func(path, reason string) { c.warn("%s: %s", path, reason) }
	o, key, err := a.BackupOptions(ctx, t, warn)
	if err != nil {
		return err
	}
	return c.store(ctx, a, t, f, o, key, strings.Join(t.Config.Paths, ", "), func(ctx context.Context, o backup.Options, w *watcher) (backup.Result, error) {
		defer c.countAhead(ctx, o, w.meter)()
		return backup.Run(ctx, o)
	})
}

// store runs a backup, do, with the set locked, its vault open, and all that belongs around it. what is for people.
func (c *command) store(ctx context.Context, a *app.App, t app.Target, f backupFlags, o backup.Options, key *keyfile.Key, what string,
	do func(ctx context.Context, o backup.Options, w *watcher) (backup.Result, error)) error {
	store, err := a.OpenVaultFor(ctx, t, key)
	if err != nil {
		return err
	}
	if err := c.checkKnown(ctx, a, t, store, f); err != nil {
		return err
	}
	if t.New {
		if t.Set, err = a.AddSet(ctx, t.Set); err != nil {
			return err
		}
		o.Set = t.Set
	}
	ctx, release, err := a.LockSet(ctx, t.Set)
	if err != nil {
		return err
	}
	defer release()
	if err := o.Catalog.PutSet(ctx, t.Set); err != nil {
		return err
	}
	run, err := a.BeginRun(ctx, "backup", t.Set.Name)
	if err != nil {
		return err
	}
	if o.Transfer.Limit, err = c.limiter(a, f.limit); err != nil {
		return err
	}
	o.Store, o.Full, o.Transfer.Parallel = store, o.Full || f.full, f.parallel
	o.AllowEmpty = f.allowEmpty
	if v := store.Traits(); v.Warm && v.MinPart <= 4<<20 {
		// Requests cost nothing there, memory and waiting for the disk do.
		o.Transfer.PartSize = 4 << 20
		if o.Transfer.Parallel == 0 {
			o.Transfer.Parallel = 4
		}
	}
	c.warnOfDangers(ctx, store, run.Warn)
	meter := progress.New(nil)
	tell, stop := c.watch(t.Set.Name, meter)
	defer stop()
	tell.Tell(progress.Event{Kind: progress.Began, Set: t.Set.Name, Text: "backing up " + what + " to " + t.Set.Vault})
	w := &watcher{meter: meter, tell: tell, log: run, files: c.verbose}
	o.Observe = w
	res, err := do(ctx, o, w)
	stop()
	if cause := context.Cause(ctx); err != nil && cause != nil && failure.KindOf(cause) == failure.Locked {
		err = cause
	}
	if err == nil {
		if terr := a.TidyLocal(ctx, store); terr != nil {
			run.Warn("tidy the vault", "error", terr)
		}
	}
	return c.backupEnd(ctx, a, run, t, res, err)
}

const startOverText = "store everything anew, although the vault holds archives of the set that the catalog does not know"

// checkKnown refuses a backup where the catalog does not know what the vault has of the set. store is nil where there is no vault yet.
func (c *command) checkKnown(ctx context.Context, a *app.App, t app.Target, store coldstore.Lister, f backupFlags) error {
	if err := a.CheckRecovered(ctx, t.Set.Vault); err != nil {
		return withHint(err, "firn recover %s", t.Set.Vault)
	}
	if f.startOver || store == nil {
		return nil
	}
	sure, err := a.CheckKnown(ctx, t.Set, store)
	if err != nil && !sure {
		c.warn("%v; if the catalog was lost, firn recover %s makes it anew", err, t.Set.Vault)
		return nil
	}
	return withHint(err, "firn recover %s makes the catalog anew; if they are of no use, --start-over stores everything again", t.Set.Vault)
}

// checkBeforeKey is checkKnown where there is no key file yet: one that is made for a backup that is then refused would be in the way of the
// old one, without which nothing can be recovered.
func (c *command) checkBeforeKey(ctx context.Context, a *app.App, t app.Target, f backupFlags) error {
	if f.startOver || a.HasKeyFile() {
		return nil
	}
	store, err := a.DryStore(ctx, t)
	if err != nil || store == nil {
		return err // nil: it is to be made
	}
	return c.checkKnown(ctx, a, t, store, f)
}

// backupEnd says how it went, on the terminal and in the run's log.
func (c *command) backupEnd(ctx context.Context, a *app.App, run *app.Run, t app.Target, res backup.Result, err error) error {
	if res.Shrunk {
		c.warn("set %s has shrunk to less than half of what it was: is something not mounted? The snapshot is stored all the same", t.Set.Name)
	}
	for _, o := range res.Orphans {
		run.Warn("orphan of an abandoned attempt", "archive", o)
	}
	if n := len(res.Orphans); n > 0 {
		c.warn("%s of an attempt that could not go on (paths, excludes, codecs, keys or sizes of volumes are others now) are still in the vault; firn prune deletes them", plural(int64(n), "archive"))
	}
	done := err == nil || failure.KindOf(err) == failure.Partial
	summary := ""
	if done {
		summary = backupSummary(t.Set.Name, res)
		c.tell(progress.Event{Kind: progress.Summary, Set: t.Set.Name, Snapshot: res.Snapshot.ID, Text: summary, Data: backupJSON(t, res)})
	} else {
		summary = err.Error()
		run.Error("failed", "error", err)
	}
	c.lastRun = lastRun{run.ID, summary, codeOf(err)}
	code := 0
	if err != nil {
		code = exitCode(failure.KindOf(err))
		if ctx.Err() != nil && failure.KindOf(err) == failure.Failed {
			code = exitCode(failure.Interrupted)
		}
	}
	return errors.Join(err, run.End(ctx, code, summary))
}

func (c *command) backupDry(ctx context.Context, a *app.App, t app.Target, f backupFlags) error {
	warn := func(path, reason string) { c.warn("%s: %s", path, reason) }
	o, err := c.dryOptions(ctx, a, t, f, warn)
	if err != nil {
		return err
	}
	o.Full, o.AllowEmpty = o.Full || f.full, f.allowEmpty
	meter := progress.New(nil)
	tell, stop := c.watch(t.Set.Name, meter)
	defer stop()
	o.Observe = &watcher{meter: meter, tell: tell, files: true}
	if !c.verbose && !c.json {
		o.Observe = &watcher{meter: meter, tell: tell}
	}
	res, err := backup.DryRun(ctx, o, f.dryRun == "full")
	stop()
	if err != nil && failure.KindOf(err) != failure.Partial {
		return err
	}
	c.tell(progress.Event{Kind: progress.Summary, Set: t.Set.Name, Text: drySummary(t, res, f.dryRun == "full"), Data: backupJSON(t, res)})
	return err
}

// dryOptions are those of a dry run. A backup that would be refused is refused now.
func (c *command) dryOptions(ctx context.Context, a *app.App, t app.Target, f backupFlags, warn func(path, reason string)) (backup.Options, error) {
	o, store, err := a.DryOptions(ctx, t, warn)
	if err != nil {
		return o, err
	}
	return o, c.checkKnown(ctx, a, t, store, f)
}

// countAhead finds out how much there is to do, for the bar. It stops with the run.
func (c *command) countAhead(ctx context.Context, o backup.Options, m *progress.Meter) (end func()) {
	if c.quiet || !c.json && !isTerminal(c.stderr) {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if files, bytes, err := backup.Count(ctx, o.Tree); err == nil { // otherwise the run itself will say so
			m.SetTotals(bytes, files)
		}
	}()
	return func() { cancel(); <-done }
}

// watcher tells progress of what a backup does.
type watcher struct {
	meter *progress.Meter
	tell  progress.Watcher
	log   *app.Run // nil: no log
	files bool     // tell of each file
	bytes bool     // of the stream count: it is not made of files
}

var _ backup.Observer = (*watcher)(nil)

func (w *watcher) Entry(a backup.Action, path string, count, size int64) {
	if a != backup.Deleted {
		w.meter.AddFiles(count)
	}
	if a == backup.Unchanged || a == backup.Metadata { // of the others Read tells
		w.meter.AddBytes(size)
	}
	if w.files && path != "" {
		w.tell.Tell(progress.Event{Kind: progress.File, Path: path, Bytes: size, Text: string(a)})
	}
}

func (w *watcher) Read(n int64) {
	if w.bytes {
		w.meter.AddBytes(n)
	}
}
func (w *watcher) Sent(n int64) { w.meter.AddSent(n) }
func (w *watcher) note(msg string, args ...any) {
	if w.log != nil {
		w.log.Info(msg, args...)
	}
}

func (w *watcher) Volume(n int, archive string, size int64) {
	w.note("stored", "volume", n, "archive", archive, "bytes", size)
	w.tell.Tell(progress.Event{Kind: progress.Archive, Archive: archive, N: n, Bytes: size, Text: "stored"})
}

func (w *watcher) Problem(p snapshot.Problem) {
	if w.log != nil {
		w.log.Warn("problem", "path", p.Path, "reason", p.Reason)
	}
	w.tell.Tell(progress.Event{Kind: progress.Problem, Path: p.Path, Text: p.Reason})
}

func (w *watcher) Resumed(snap string, volumes int) {
	w.note("going on with an interrupted attempt", "snapshot", snap, "volumes", volumes)
	w.tell.Tell(progress.Event{Kind: progress.Notice, Snapshot: snap, N: volumes,
		Text: fmt.Sprintf("going on where the last run was interrupted: %s stored already", plural(int64(volumes), "volume"))})
}
