package cli

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/plain"
	"github.com/firn-backup/firn/internal/progress"
	"github.com/firn-backup/firn/internal/units"
)

type uploadFlags struct {
	name, description, expect, part, upload string
	parallel                                int
	limit                                   limitFlag
}

func newArchiveUpload(c *command) *cobra.Command {
	var f uploadFlags
	cmd := &cobra.Command{
		Use:   "upload VAULT FILE…|-",
		Short: "Store files, or the standard input, as archives",
		Long: `Store a file as it is, or several, each as an archive. The same command goes on with an upload that was
interrupted, at the part. An archive's id is printed as soon as it is stored; of several files that cannot be stored the others are.

What comes from the standard input (-) has parts of 64 MiB, of which a vault of Amazon Glacier
takes 10,000: 625 GiB. --expected-size makes parts large enough for more, and so does a name that is a key of
git-annex with a size (SHA256E-s123456--…), or an archive of that name that was nearly as large. A warning comes
when four fifths are full; a longer stream is refused as soon as that is certain.`,
		Example: example("firn archive upload photos holiday.iso", "firn archive upload photos holiday.iso --upload-id ID", "tar c / | firn archive upload photos - --name root.tar --expected-size 2TiB"),
		Args:    args(2, -1, "a vault and files"),
		RunE:    func(cmd *cobra.Command, args []string) error { return c.uploadArchives(cmd, args[0], args[1:], f) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.name, "name", "", "call the archive `NAME` (default: the file's name)")
	fs.StringVar(&f.description, "description", "", "the `TEXT` that the vault keeps with it, printable ASCII (default: the name)")
	fs.StringVar(&f.expect, "expected-size", "", "the `SIZE` that the standard input may come to")
	fs.StringVar(&f.part, "part-size", "", "the `SIZE` of parts, a power of two of MiBs (default: by the archive's size)")
	fs.StringVar(&f.upload, "upload-id", "", "go on with the unfinished upload of that `ID`, whoever began it; the bytes must be the same")
	fs.IntVar(&f.parallel, "parallel", 0, "parts sent at a time (default 2; 1 of parts above 32 MiB)")
	f.limit.add(cmd)
	return cmd
}

func (f *uploadFlags) options() (plain.UploadOptions, error) {
	o := plain.UploadOptions{Name: f.name, Description: f.description, UploadID: f.upload}
	var err error
	if f.expect != "" {
		if o.Expect, err = units.ParseSize(f.expect); err != nil {
			return o, usage("--expected-size: %v", err)
		}
	}
	if f.part != "" {
		if o.PartSize, err = units.ParseSize(f.part); err != nil {
			return o, usage("--part-size: %v", err)
		}
		if n := o.PartSize; n < 1<<20 || n > 4<<30 || n&(n-1) != 0 {
			return o, usage("--part-size %s: must be a power of two of MiBs, 1MiB to 4GiB", f.part)
		}
	}
	if f.parallel < 0 || f.parallel > 64 {
		return o, usage("--parallel %d: must be 1 to 64", f.parallel)
	}
	o.Transfer.Parallel = f.parallel
	if f.description != "" {
		err = plain.CheckDescription(f.description)
	}
	return o, err
}

// uploadArchives stores files one after the other; one that fails does not keep back the others.
func (c *command) uploadArchives(cmd *cobra.Command, vault string, files []string, f uploadFlags) error {
	if len(files) == 1 {
		return c.uploadArchive(cmd, vault, files[0], f)
	}
	if f.name != "" || f.upload != "" || slices.Contains(files, "-") {
		return usage("--name, --upload-id and - are of one archive, and these are %d files", len(files))
	}
	failed := 0
	var last error
	for _, file := range files {
		err := c.uploadArchive(cmd, vault, file, f)
		switch {
		case err == nil:
		case cmd.Context().Err() != nil:
			return err
		default:
			failed, last = failed+1, err
			c.err("firn: error: ", err.Error())
		}
	}
	switch {
	case failed == 0:
		return nil
	case failed == len(files):
		return failure.Errorf(failure.KindOf(last), "nothing was stored")
	}
	return failure.Errorf(failure.Partial, "%d of %d files were not stored", failed, len(files))
}

func (c *command) uploadArchive(cmd *cobra.Command, vault, file string, f uploadFlags) error {
	ctx := cmd.Context()
	if err := given(cmd, "part-size", "upload-id", "expected-size"); err != nil {
		return err
	}
	o, err := f.options()
	if err != nil {
		return err
	}
	stream := file == "-"
	if stream && o.Name == "" {
		return usage("what comes from the standard input needs --name NAME")
	}
	if !stream && f.expect != "" {
		return usage("--expected-size is for the standard input: the size of %s is known", file)
	}
	a, v, err := c.plainVault(cmd, vault)
	if err != nil {
		return err
	}
	if o.Transfer.Limit, err = c.limiter(a, f.limit); err != nil {
		return err
	}
	locked := "stdin:" + o.Name
	if !stream {
		if locked, err = filepath.Abs(file); err != nil {
			return err
		}
	}
	ctx, release, err := a.LockUpload(ctx, v.URL, locked)
	if err != nil {
		return err
	}
	defer release()
	run, err := a.BeginRun(ctx, "archive upload", "")
	if err != nil {
		return err
	}
	label := o.Name
	if label == "" {
		label = filepath.Base(file)
	}
	meter := progress.New(nil)
	tell, stop := c.watch(label, meter)
	defer stop()
	o.Read = meter.AddBytes
	o.Transfer.Sent = meter.AddSent
	o.Near = func(come, most, partSize int64) { c.warn("%s", plain.NearText(label, come, most, partSize)) }
	o.Resumed = func(there, all int64) {
		tell.Tell(progress.Event{Kind: progress.Notice, Text: fmt.Sprintf("going on with an interrupted upload: %s of %s are there", units.Size(there), units.Size(all))})
	}
	var stored coldstore.Archive
	if stream {
		stored, err = v.Stream(ctx, plain.Interruptible(ctx, c.env.Stdin), o)
	} else {
		if info, serr := os.Stat(file); serr == nil {
			meter.SetTotals(info.Size(), 1)
		}
		stored, err = v.File(ctx, file, o)
	}
	stop()
	summary := ""
	if err == nil {
		summary = fmt.Sprintf("stored %s: %s, %s", label, units.Size(stored.Size), stored.ID)
		j := archiveJSON(catalog.ArchiveRecord{Vault: v.URL, Archive: stored, Name: label})
		c.tell(progress.Event{Kind: progress.Summary, Archive: stored.ID, Text: fmt.Sprintf("stored %s: %s, tree hash %s", label, units.Size(stored.Size), stored.TreeHash), Data: j})
		if !c.json {
			c.printf("%s\n", stored.ID)
		}
	} else {
		summary = err.Error()
	}
	return errors.Join(err, run.End(ctx, c.codeOf(ctx, err), summary))
}

type retrieveArchiveFlags struct {
	out, span, overwrite string

	limit limitFlag
	retrieveFlags
}

func newArchiveRetrieve(c *command) *cobra.Command {
	var f retrieveArchiveFlags
	cmd := &cobra.Command{
		Use:   "retrieve VAULT ARCHIVE…",
		Short: "Get archives back as files",
		Long: `Get archives back, by id or name, each as a file of its name here, or as -o says. The vault is asked for
all of them; while they are not ready the exit code is 75, and the same command goes on later. Every archive is compared
with its tree hash before its file gets its name. After an interruption it goes on at the byte.`,
		Example: example("firn archive retrieve photos holiday.iso", "firn archive retrieve photos id:… -o - | tar t", "firn archive retrieve photos holiday.iso --range 0-1048575 -o head"),
		Args:    args(2, -1, "a vault, and archives"),
		RunE:    func(cmd *cobra.Command, args []string) error { return c.retrieveArchives(cmd, args[0], args[1:], f) },
	}
	fs := cmd.Flags()
	fs.StringVarP(&f.out, "output", "o", "", "the `FILE` to make, the directory to make them in, or - for the standard output")
	fs.StringVar(&f.overwrite, "overwrite", "never", "never, or always: replace a file that is there and is something else, once the archive is whole")
	fs.StringVar(&f.span, "range", "", "only bytes `FIRST-LAST`, both included and counted from 0; FIRST- is to the end")
	f.retrieveFlags.add(cmd)
	f.limit.add(cmd)
	return cmd
}

// parseSpan reads FIRST-LAST.
func parseSpan(s string) (plain.Span, error) {
	if s == "" {
		return plain.Span{}, nil
	}
	first, last, ok := strings.Cut(s, "-")
	a, err1 := units.ParseSize(first)
	bad := usage("--range %s: must be FIRST-LAST, two numbers of bytes", s)
	if !ok || err1 != nil {
		return plain.Span{}, bad
	}
	if last == "" {
		return plain.Span{First: a}, nil
	}
	b, err := units.ParseSize(last)
	if err != nil || a > b || b == math.MaxInt64 {
		return plain.Span{}, bad
	}
	return plain.Span{First: a, End: b + 1}, nil
}

func (c *command) retrieveArchives(cmd *cobra.Command, vault string, refs []string, f retrieveArchiveFlags) error {
	ctx := cmd.Context()
	if err := given(cmd, "range", "output"); err != nil {
		return err
	}
	if err := f.check(); err != nil {
		return err
	}
	if f.overwrite != "never" && f.overwrite != "always" {
		return usage("--overwrite %s: must be never or always", f.overwrite)
	}
	span, err := parseSpan(f.span)
	if err != nil {
		return err
	}
	a, v, err := c.plainVault(cmd, vault)
	if err != nil {
		return err
	}
	d, err := c.desk(ctx, f.retrieveFlags, v.URL, v.Store)
	if err != nil {
		return err
	}
	list, err := c.archivesOrIDs(ctx, v, refs)
	if err != nil {
		return err
	}
	targets, err := c.targets(list, span, f)
	if err != nil {
		return err
	}
	var o plain.RetrieveOptions
	r := &o.Retrieval
	r.Tier, r.Days, r.Pace, r.Approve, r.Wait = d.tier, d.days, d.pace, d.approve, f.wait
	if r.Transfer.Limit, err = c.limiter(a, f.limit); err != nil {
		return err
	}
	run, err := a.BeginRun(ctx, "archive retrieve", "")
	if err != nil {
		return err
	}
	meter := progress.New(nil)
	tell, stop := c.watch("retrieve", meter)
	defer stop()
	var total int64
	for _, t := range targets {
		total += t.Archive.Size
	}
	meter.SetTotals(total, int64(len(targets)))
	o.Read = meter.AddBytes
	r.Waiting = func(ready, all int) {
		tell.Tell(progress.Event{Kind: progress.Waiting, Text: waitingText(ready, all)})
	}
	n := 0
	o.Done = func(t plain.Target, resumed int64) {
		n++
		meter.AddFiles(1)
		j := archiveJSON(t.Archive)
		j.File = t.File
		text := fmt.Sprintf("%s: %s", plain.Title(t.Archive), t.File)
		if t.Out != nil {
			text = plain.Title(t.Archive)
		}
		if resumed > 0 {
			text += fmt.Sprintf(" (%s were there already)", units.Size(resumed))
		}
		run.Info("retrieved", "archive", t.Archive.ID, "file", t.File)
		if t.Out == nil || !c.json {
			tell.Tell(progress.Event{Kind: progress.Summary, Archive: t.Archive.ID, Text: "retrieved " + text, Data: j})
		}
	}
	err = v.Retrieve(ctx, targets, o)
	stop()
	return errors.Join(err, run.End(ctx, c.codeOf(ctx, err), plural(int64(n), "archive")+" retrieved"))
}

// targets says where archives go.
func (c *command) targets(list []catalog.ArchiveRecord, span plain.Span, f retrieveArchiveFlags) ([]plain.Target, error) {
	dir, out := ".", f.out
	info, err := os.Stat(out)
	switch {
	case out == "" || err == nil && info.IsDir():
		if out != "" {
			dir = out
		}
		out = ""
	case len(list) > 1:
		return nil, usage("-o %s: there are several archives, and that is no directory", out)
	case out == "-" && c.json:
		return nil, usage("-o - and --json both want the standard output")
	}
	var all []plain.Target
	taken := map[string]bool{}
	for _, r := range list {
		t := plain.Target{Archive: r, Span: span, File: out}
		switch out {
		case "-":
			t.File, t.Out = "", c.env.Stdout
		case "":
			t.File = filepath.Join(dir, localName(r))
		}
		if t.File != "" && taken[t.File] {
			return nil, failure.Errorf(failure.Usage, "two archives would become %s: retrieve them one by one, with -o", t.File)
		}
		taken[t.File] = true
		if info, err := os.Lstat(t.File); t.File != "" && err == nil && f.overwrite == "always" {
			if t.Replace = info.Mode().IsRegular(); !t.Replace {
				return nil, failure.Errorf(failure.Usage, "%s is no regular file: --overwrite does not replace it", t.File)
			}
		}
		all = append(all, t)
	}
	return all, nil
}
