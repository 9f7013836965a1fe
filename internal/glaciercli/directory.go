package glaciercli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/plain"
)

// file is one of a directory that is to be kept in a vault.
type file struct {
	path string // to open it
	name string // from the directory on, with slashes
}

// files lists the regular files below a directory, but for hidden ones and what is in hidden directories, in the
// order of names. Links to directories are not followed.
func (s *session) files(dir string) ([]file, error) {
	var list []file
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		if err == nil {
			err = fmt.Errorf("%s is not a directory", repr(dir))
		}
		return nil, err
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == dir {
			return nil
		}
		if strings.HasPrefix(d.Name(), ".") {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			return nil
		}
		info, err := os.Stat(path) // through a link
		switch {
		case errors.Is(err, fs.ErrNotExist):
			s.warn("%s is a link to nothing: left out", path)
			return nil
		case err != nil:
			return err
		case info.IsDir():
			return nil
		case !info.Mode().IsRegular():
			s.warn("%s is not a regular file: left out", path)
			return nil
		case info.Size() == 0:
			s.warn("%s is empty, and an archive has one byte at least: left out", path)
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		list = append(list, file{path, filepath.ToSlash(rel)})
		return nil
	})
	return list, err
}

// stored is what a vault has by name: newest versions, and those that they replace.
type stored struct {
	byName map[string][]catalog.ArchiveRecord // the oldest first
	// bases says how many of the files have a base name: the fork called archives by these.
	bases map[string]int
	paths map[string]bool
}

func (v *vault) stored(ctx context.Context, files []file) (*stored, error) {
	st := &stored{byName: map[string][]catalog.ArchiveRecord{}, bases: map[string]int{}, paths: map[string]bool{}}
	for _, f := range files {
		st.bases[filepath.Base(f.path)]++
		st.paths[f.name] = true
	}
	err := v.each(ctx, func(r catalog.ArchiveRecord) error {
		if name := plain.Name(r); name != "" && !plain.IsOwn(r) {
			st.byName[name] = append(st.byName[name], r)
		}
		return nil
	})
	for name, list := range st.byName {
		err = errors.Join(err, v.sortByAge(ctx, name, list))
	}
	return st, err
}

// of are the archives of a file: those of its path, else those of its base name, if no other file could be meant.
func (st *stored) of(f file) []catalog.ArchiveRecord {
	if list := st.byName[f.name]; len(list) > 0 {
		return list
	}
	base := filepath.Base(f.path)
	if base == f.name || st.bases[base] > 1 || st.paths[base] {
		return nil
	}
	return st.byName[base]
}

// copies are archives of the file's base name, whichever file they are of: one of them may have its content.
func (st *stored) copies(f file) []catalog.ArchiveRecord {
	if base := filepath.Base(f.path); base != f.name && len(st.byName[f.name]) == 0 && !st.paths[base] {
		return st.byName[base]
	}
	return nil
}

// sameness is how a file compares with an archive.
type sameness int

const (
	different sameness = iota
	same
	unknown // what the archive holds is not known
)

// compare compares a file with an archive by size and tree hash. hash remembers that of the file.
func compare(ctx context.Context, f file, r catalog.ArchiveRecord, hash *fileHash) (sameness, error) {
	if r.Size > 0 {
		info, err := os.Stat(f.path)
		if err != nil {
			return unknown, err
		}
		if info.Size() != r.Size {
			return different, nil
		}
	}
	if r.TreeHash.IsZero() {
		return unknown, nil
	}
	sum, err := hash.of(ctx, f.path)
	if err != nil {
		return unknown, err
	}
	if sum == r.TreeHash {
		return same, nil
	}
	return different, nil
}

// archiveMultiUpload stores all files of a directory, each under its path from there on.
func archiveMultiUpload(ctx context.Context, s *session) error {
	v, err := s.vault(ctx, s.args.args[0])
	if err != nil {
		return err
	}
	list, err := s.files(s.args.args[1])
	if err != nil {
		return err
	}
	var have *stored
	if s.args.has("--resume") {
		if have, err = v.stored(ctx, list); err != nil {
			return err
		}
	}
	n, failed := 0, 0
	for _, f := range list {
		if have != nil {
			skip, err := v.isStored(ctx, have, f)
			if err != nil {
				return err
			}
			if skip {
				continue
			}
		}
		if err := v.uploadFile(ctx, f); err != nil {
			if ctx.Err() != nil {
				return err
			}
			s.say("Failed upload for archive %s: %s", f.name, err)
			failed++
			continue
		}
		n++
	}
	s.info("%d archives uploaded", n)
	if failed > 0 {
		return fmt.Errorf("%d of %d files were not stored", failed, len(list))
	}
	return nil
}

// isStored says whether the newest archive of a file, or one that the fork stored under its base name, has its content. Where
// nothing is known of the content, the name decides.
func (v *vault) isStored(ctx context.Context, have *stored, f file) (bool, error) {
	var h fileHash
	if of := have.of(f); len(of) > 0 {
		is, err := compare(ctx, f, of[len(of)-1], &h)
		if is != different || err != nil {
			return is != different, err
		}
	}
	for _, r := range have.copies(f) {
		if is, err := compare(ctx, f, r, &h); is == same || err != nil {
			return is == same, err
		}
	}
	return false, nil
}

func (v *vault) uploadFile(ctx context.Context, f file) error {
	o := plain.UploadOptions{Name: f.name}
	if err := plain.CheckDescription(plain.Describe(f.name)); err != nil {
		return err
	}
	in, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer in.Close() // it was only read
	v.s.info("Uploading archive %s", f.name)
	_, err = v.upload(ctx, f.path, in, o)
	return err
}

// plan is what makes a vault the same as a directory.
type plan struct {
	upload  []file
	remove  []catalog.ArchiveRecord // each replaced by a newer one, or by one of upload
	blind   []file                  // what the vault has of them is not known
	strange []string                // in the vault, and not in the directory
}

// vaultReconcile makes a vault the same as a directory: files that are new or different are uploaded, and then what they
// replace is deleted, once its minimum storage duration is over. What has no file is told of and never deleted.
func vaultReconcile(ctx context.Context, s *session) error {
	v, err := s.vault(ctx, s.args.args[0])
	if err != nil {
		return err
	}
	list, err := s.files(s.args.args[1])
	if err != nil {
		return err
	}
	p, err := v.open(ctx)
	if err != nil {
		return err
	}
	s.info("Computing checksums for %d files. Please wait", len(list))
	todo, err := v.compareAll(ctx, list)
	if err != nil {
		return err
	}
	young := v.spare(todo, p.Store.Traits().MinDays)
	s.summary(todo)
	switch {
	case len(todo.upload)+len(todo.remove) == 0:
	case !s.args.has("--commit"):
		s.info("use --commit to perform these changes")
	default:
		if err := v.commit(ctx, todo); err != nil {
			return err
		}
	}
	for _, text := range young {
		s.warn("%s", text)
	}
	for _, f := range todo.blind {
		s.warn("what the vault has of %s is not known: glacier vault sync finds out", f.name)
	}
	if len(todo.strange) > 0 {
		s.warn("Following files are in cache/glacier but not on disk:")
		for _, name := range todo.strange {
			s.talk("", name)
		}
	}
	return nil
}

func (s *session) summary(todo *plan) {
	if len(todo.upload)+len(todo.remove) == 0 {
		s.info("Nothing to do")
		return
	}
	s.info("Reconciliation summary:")
	s.info("Delete:")
	for _, r := range todo.remove {
		s.talk("", reference(r))
	}
	s.info("Upload:")
	for _, f := range todo.upload {
		s.talk("", f.path)
	}
}

// compareAll compares files with what the vault has.
func (v *vault) compareAll(ctx context.Context, list []file) (*plan, error) {
	have, err := v.stored(ctx, list)
	if err != nil {
		return nil, err
	}
	todo := &plan{}
	used := map[string]bool{}
	for _, f := range list {
		var h fileHash
		of := have.of(f)
		for _, r := range of {
			used[plain.Name(r)] = true
		}
		is := different
		if len(of) > 0 {
			if is, err = compare(ctx, f, of[len(of)-1], &h); err != nil {
				return nil, err
			}
		}
		if is == different {
			found, err := v.sameCopy(ctx, have, f, &h, used)
			if err != nil {
				return nil, err
			}
			if found {
				continue
			}
		}
		switch is {
		case unknown:
			todo.blind = append(todo.blind, f)
		case same:
			todo.remove = append(todo.remove, of[:len(of)-1]...)
		default:
			todo.upload = append(todo.upload, f)
			todo.remove = append(todo.remove, of...)
		}
	}
	for name := range have.byName {
		if !used[name] && !have.paths[name] {
			todo.strange = append(todo.strange, name)
		}
	}
	slices.Sort(todo.strange)
	return todo, nil
}

// sameCopy looks for the file's content among archives that only have its base name.
func (v *vault) sameCopy(ctx context.Context, have *stored, f file, h *fileHash, used map[string]bool) (bool, error) {
	for _, r := range have.copies(f) {
		is, err := compare(ctx, f, r, h)
		if err != nil {
			return false, err
		}
		if is == same {
			used[plain.Name(r)] = true
			return true, nil
		}
	}
	return false, nil
}

// spare takes out of the plan what has not been stored for the minimum of days, and says so.
func (v *vault) spare(todo *plan, days int) []string {
	var texts []string
	var old []catalog.ArchiveRecord
	for _, r := range todo.remove {
		until := r.Created.Add(time.Duration(days) * 24 * time.Hour)
		switch {
		case days > 0 && r.Created.IsZero():
			texts = append(texts, fmt.Sprintf("archive %s (id:%s) is kept: its age is not known", reference(r), r.ID))
		case days > 0 && v.app.Now().Before(until):
			texts = append(texts, fmt.Sprintf("archive %s (id:%s) is kept until %s: before that deleting it is charged for", reference(r), r.ID, until.UTC().Format(time.DateOnly)))
		default:
			old = append(old, r)
		}
	}
	todo.remove = old
	return texts
}

// commit uploads all before it deletes anything. If one file cannot be uploaded, nothing is deleted.
func (v *vault) commit(ctx context.Context, todo *plan) error {
	for _, f := range todo.upload {
		if err := v.uploadFile(ctx, f); err != nil {
			v.s.say("Failed upload for archive %s", f.name)
			return err
		}
	}
	for _, r := range todo.remove {
		v.s.info("Deleting archive %s", reference(r))
		if err := v.remove(ctx, r); err != nil {
			return err
		}
	}
	return nil
}
