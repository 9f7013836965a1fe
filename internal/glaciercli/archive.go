package glaciercli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/plain"
)

// unprintable says that a name cannot stand in a line.
func unprintable(name string) bool {
	return !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl)
}

// lineName is the name as lists print it: one that would break the line as its description.
func lineName(r catalog.ArchiveRecord) string {
	if name := plain.Name(r); !unprintable(name) {
		return name
	}
	return r.Description
}

// archiveList prints what is known, by name.
func archiveList(ctx context.Context, s *session) error {
	v, err := s.vault(ctx, s.args.args[0])
	if errors.Is(err, coldstore.ErrNotFound) { // an account without vaults: nothing is known
		return nil
	}
	if err != nil {
		return err
	}
	var all []catalog.ArchiveRecord
	count := map[string]int{}
	err = v.each(ctx, func(r catalog.ArchiveRecord) error {
		all = append(all, r)
		count[lineName(r)]++
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortStableFunc(all, func(a, b catalog.ArchiveRecord) int {
		return cmp.Or(cmp.Compare(lineName(a), lineName(b)), a.Created.Compare(b.Created))
	})
	ids, hashes := s.args.has("--force-ids"), s.args.has("--with-hash")
	for _, r := range all {
		name, hash := lineName(r), ""
		if !r.TreeHash.IsZero() {
			hash = r.TreeHash.String()
		}
		ref := reference(r)
		switch {
		case ids && hashes:
			ref = "id:" + r.ID + "\t" + hash + "\t" + cmp.Or(name, "None")
		case ids:
			ref = "id:" + r.ID + "\t" + cmp.Or(name, "None")
		case count[name] > 1 && name != "" && hashes:
			ref = "id:" + r.ID + "\t" + hash
		case count[name] > 1 && name != "":
			ref = "id:" + r.ID + "\t" + name
		case hashes:
			ref += "\t" + hash
		}
		s.line(ref)
	}
	return nil
}

// archiveUpload stores a file, or the standard input.
func archiveUpload(ctx context.Context, s *session) error {
	file := s.args.args[1]
	o := plain.UploadOptions{Name: s.args.given["--name"]}
	if s.args.has("--name") {
		o.Unnamed = o.Name == ""
	} else if file == "-" {
		o.Name = "<stdin>"
		s.info("without --name the archive is called %s", repr(o.Name))
	} else {
		o.Name = filepath.Base(file)
	}
	if err := plain.CheckDescription(plain.Describe(o.Name)); err != nil {
		return fmt.Errorf("archive %s: %w", repr(o.Name), err)
	}
	var f *os.File
	if file != "-" {
		var err error
		if f, err = os.Open(file); err != nil {
			return cannotOpen(file, err)
		}
		defer f.Close() // it was only read
		if info, err := f.Stat(); err != nil || info.IsDir() {
			return cannotOpen(file, cmp.Or(err, error(syscall.EISDIR)))
		}
	}
	v, err := s.vault(ctx, s.args.args[0])
	if err != nil {
		return err
	}
	_, err = v.upload(ctx, file, f, o)
	return err
}

// cannotOpen is how argparse says it.
func cannotOpen(file string, err error) error {
	text, number := err.Error(), syscall.Errno(0)
	if errors.As(err, &number) {
		text = fmt.Sprintf("[Errno %d] %s: %s", int(number), strings.ToUpper(number.Error()[:1])+number.Error()[1:], repr(file))
	}
	return &usageError{"usage: glacier archive upload [-h] [--name NAME] vault file", "glacier archive upload", fmt.Sprintf("argument file: can't open %s: %s", repr(file), text)}
}

// upload stores a file; f is it, nil for the standard input.
func (v *vault) upload(ctx context.Context, file string, f *os.File, o plain.UploadOptions) (coldstore.Archive, error) {
	var none coldstore.Archive
	p, err := v.open(ctx)
	if err != nil {
		return none, err
	}
	stream, locked := true, "stdin:"+o.Name
	if f != nil {
		info, err := f.Stat()
		if err != nil {
			return none, err
		}
		if stream = !info.Mode().IsRegular(); !stream {
			if locked, err = filepath.Abs(file); err != nil {
				return none, err
			}
		}
	}
	ctx, release, err := waitFor(ctx, func() (context.Context, func(), error) { return v.app.LockUpload(ctx, v.url, locked) })
	if err != nil {
		return none, err
	}
	defer release()
	o.Near = func(come, most, partSize int64) { v.s.warn("%s", plain.NearText(o.Name, come, most, partSize)) }
	switch {
	case !stream:
		return p.File(ctx, file, o)
	case f != nil:
		return p.Stream(ctx, plain.Interruptible(ctx, f), o)
	}
	return p.Stream(ctx, plain.Interruptible(ctx, v.s.env.Stdin), o)
}

// archiveDelete deletes an archive. What was deleted here before is as good, and so is what is known to be absent if it is
// called by a key of git-annex, which cannot forget it otherwise.
func archiveDelete(ctx context.Context, s *session) error {
	v, err := s.vault(ctx, s.args.args[0])
	if err != nil {
		return err
	}
	ref := s.args.args[1]
	list, err := v.doomed(ctx, ref)
	if err != nil {
		return err
	}
	for _, r := range list {
		if err := v.remove(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// doomed are the archives that are to be deleted by a reference: of several of one name the newest, but all where the
// name is a key of git-annex, which stands for one content. None: that was done before.
func (v *vault) doomed(ctx context.Context, ref string) ([]catalog.ArchiveRecord, error) {
	all, err := v.references(ctx, ref)
	if err != nil {
		return nil, err
	}
	name := strings.TrimPrefix(ref, "name:")
	annex := !strings.HasPrefix(ref, "id:") && (isKey(name) || len(bareKeys(name)) > 0)
	there := alive(all)
	switch {
	case annex && len(there) > 1:
		v.s.info("%d archives are called %s, a key of git-annex: all of them are deleted", len(there), repr(ref))
		return there, nil
	case len(there) > 0:
		return []catalog.ArchiveRecord{v.newest(ref, there)}, nil
	}
	if was, err := v.wasDeleted(ctx, ref); was || err != nil {
		return nil, err
	}
	if annex {
		p := &presence{vault: v, ref: ref, maxAge: ageOf(presentAge)}
		is, _, err := p.known(ctx)
		if err != nil || is == plain.Absent {
			return nil, err
		}
		if is == plain.Present { // its upload was interrupted, and turned out to be complete
			return v.references(ctx, ref)
		}
	}
	return nil, notFound(ref)
}

// remove deletes an archive and remembers that for good.
func (v *vault) remove(ctx context.Context, r catalog.ArchiveRecord) error {
	p, err := v.open(ctx)
	if err != nil {
		return err
	}
	err = p.Delete(ctx, []catalog.ArchiveRecord{r}, plain.DeleteOptions{AllowEarly: true}, nil)
	if errors.Is(err, coldstore.ErrNotFound) { // somebody else has
		err = v.db.ArchiveDeleted(ctx, v.url, r.ID, v.app.Now())
	}
	if err != nil {
		return err
	}
	description := r.Description
	if r.Name != "" {
		description = plain.Describe(r.Name)
	}
	return v.db.RememberDeleted(ctx, v.url, r.ID, description, v.app.Now())
}

// wasDeleted says whether an archive that is not known any more was deleted here.
func (v *vault) wasDeleted(ctx context.Context, ref string) (bool, error) {
	id, isID := strings.CutPrefix(ref, "id:")
	if isID {
		was, err := v.db.WasDeleted(ctx, v.url, id)
		if was || err != nil {
			return was, err
		}
		r, err := v.db.ArchiveByID(ctx, v.url, id)
		if failure.KindOf(err) == failure.NotFound {
			return false, nil
		}
		return !r.DeletedAt.IsZero(), err
	}
	name := strings.TrimPrefix(ref, "name:")
	was, err := v.db.WasDeleted(ctx, v.url, "", plain.Describe(name))
	if was || err != nil || v.lists {
		return was, err
	}
	list, err := v.named(ctx, name) // deleted by other means than this command
	return len(list) > 0, err
}

// archiveMultiDelete deletes archives in turn, up to the first that is not known.
func archiveMultiDelete(ctx context.Context, s *session) error {
	v, err := s.vault(ctx, s.args.args[0])
	if err != nil {
		return err
	}
	n := 0
	for _, ref := range s.args.args[1:] {
		list, err := v.doomed(ctx, ref)
		if failure.KindOf(err) == failure.NotFound {
			return fmt.Errorf("archive %s not found", ref)
		}
		if err != nil {
			return err
		}
		for _, r := range list {
			s.info("Deleting archive %s", ref)
			if err := v.remove(ctx, r); err != nil {
				return err
			}
			n++
		}
	}
	s.info("%d archives deleted", n)
	return nil
}

// archiveRetrieve gets archives back.
func archiveRetrieve(ctx context.Context, s *session) error {
	refs := s.args.args[1:]
	out, given := s.args.given["-o"]
	if given && len(refs) > 1 {
		return errors.New("cannot specify output filename with multi-archive retrieval")
	}
	v, err := s.vault(ctx, s.args.args[0])
	if err != nil {
		return err
	}
	var targets []plain.Target
	taken := map[string]string{}
	for _, ref := range refs {
		r, err := v.resolve(ctx, ref)
		if err != nil {
			return err
		}
		t := plain.Target{Archive: r, Replace: true, Again: true, File: out}
		if out == "-" {
			t.File, t.Out = "", s.env.Stdout
		} else {
			if !given {
				t.File = filepath.Base(ref)
			}
			if t.Out, err = s.writable(t.File); err != nil {
				return err
			}
			if f, ok := t.Out.(*openFile); ok {
				defer f.Close() // what was not written was told of by Write
			}
		}
		if t.File != "" && t.Out == nil {
			if t.File, err = throughLinks(t.File); err != nil {
				return err
			}
			one := oneName(t.File)
			if taken[one] != "" {
				return fmt.Errorf("archives %s and %s would both be written to %s: retrieve them one by one, with -o", repr(taken[one]), repr(ref), repr(t.File))
			}
			taken[one] = ref
		}
		targets = append(targets, t)
	}
	return v.retrieve(ctx, refs, targets)
}

func (v *vault) retrieve(ctx context.Context, refs []string, targets []plain.Target) error {
	p, err := v.open(ctx)
	if err != nil {
		return err
	}
	var done, late bytes.Buffer
	var left []plain.Target
	for i, t := range targets {
		asked := false
		var o plain.RetrieveOptions
		o.Retrieval.Wait = v.s.args.has("--wait") && len(targets) == 1
		// The vault may answer with what somebody else asked for.
		o.Retrieval.Asked = func(r coldstore.Retrieval) { asked = v.app.Now().Sub(r.Requested) < time.Minute }
		if o.Retrieval.Poll, err = v.s.poll(); err != nil {
			return err
		}
		err := p.Retrieve(ctx, []plain.Target{t}, o)
		switch {
		case err == nil:
			fmt.Fprintf(&done, "retrieved archive %s\n", repr(refs[i]))
		case failure.KindOf(err) == failure.NotReady && asked:
			fmt.Fprintf(&late, "queued retrieval job for archive %s\n", repr(refs[i]))
		case failure.KindOf(err) == failure.NotReady:
			fmt.Fprintf(&late, "job still pending for archive %s\n", repr(refs[i]))
		default:
			return fmt.Errorf("archive %s: %w", repr(refs[i]), err)
		}
		if err != nil {
			left = append(left, t)
		}
	}
	if late.Len() == 0 {
		return nil
	}
	if v.s.args.has("--wait") { // all are asked for now
		var o plain.RetrieveOptions
		o.Retrieval.Wait = true
		if o.Retrieval.Poll, err = v.s.poll(); err != nil {
			return err
		}
		return p.Retrieve(ctx, left, o)
	}
	if len(targets) == 1 {
		done.Reset()
	}
	return &pending{done.String() + late.String()}
}
