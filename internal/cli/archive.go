package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/cost"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/foreign"
	"github.com/firn-backup/firn/internal/plain"
	"github.com/firn-backup/firn/internal/units"
)

func newArchive(c *command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "archive",
		Short: "Store single files, and get them back",
		Long: `Store files, or what comes from the standard input, as single archives of a vault, in no
format of Firn's: any other program can read them. Archives are called by their ids
(id:…) or names (name:…); of several of one name the newest counts.`,
		Args: cobra.ArbitraryArgs,
		RunE: needCommand,
	}
	cmd.AddCommand(newArchiveUpload(c), newArchiveRetrieve(c), newArchiveList(c), newArchiveDelete(c), newArchiveUploads(c))
	return cmd
}

// plainVault opens a vault for single archives.
func (c *command) plainVault(cmd *cobra.Command, vault string) (*app.App, *plain.Vault, error) {
	a, err := c.open(cmd)
	if err != nil {
		return nil, nil, err
	}
	url, err := a.KnownVaultURL(cmd.Context(), vault)
	if err != nil {
		return nil, nil, err
	}
	v, err := c.knownVault(cmd.Context(), a, url)
	return a, v, err
}

// knownVault opens a vault by its URL, with what the catalog knows of it.
func (c *command) knownVault(ctx context.Context, a *app.App, url string) (*plain.Vault, error) {
	store, err := a.OpenStore(ctx, url, false)
	if err != nil {
		return nil, err
	}
	db, err := a.Catalog(ctx, true)
	if err != nil {
		return nil, err
	}
	return &plain.Vault{Store: store, Catalog: db, URL: url, Now: a.Now}, nil
}

// findArchives finds archives by what they are called.
func (c *command) findArchives(ctx context.Context, v *plain.Vault, refs []string) ([]catalog.ArchiveRecord, error) {
	var all []catalog.ArchiveRecord
	for _, ref := range refs {
		f, err := v.Find(ctx, ref)
		if errors.Is(err, plain.ErrNotKnown) && v.Store.Traits().ListLag > 0 {
			err = withHint(err, "firn vault sync %s asks the vault what it has", v.URL)
		}
		if err != nil {
			return nil, err
		}
		if f.Same > 0 {
			c.err("", fmt.Sprintf("%s archives are called %s; this is the newest, id:%s, of %s", count(int64(f.Same+1)), ref, f.ID, c.stamp(f.Created)))
		}
		all = append(all, f.ArchiveRecord)
	}
	return all, nil
}

// archivesOrIDs is findArchives, to which an id that is not known here is one that the vault may know.
func (c *command) archivesOrIDs(ctx context.Context, v *plain.Vault, refs []string) ([]catalog.ArchiveRecord, error) {
	var all []catalog.ArchiveRecord
	for _, ref := range refs {
		if id, isID := strings.CutPrefix(ref, "id:"); isID && v.Store.Traits().ListLag > 0 {
			if _, err := v.Find(ctx, ref); errors.Is(err, plain.ErrNotKnown) {
				all = append(all, catalog.ArchiveRecord{Vault: v.URL, Archive: coldstore.Archive{ID: id}})
				continue
			}
		}
		one, err := c.findArchives(ctx, v, []string{ref})
		if err != nil {
			return nil, err
		}
		all = append(all, one...)
	}
	return all, nil
}

func newArchiveDelete(c *command) *cobra.Command {
	var force, early bool
	var s selectedFlags
	cmd := &cobra.Command{
		Use:   "delete VAULT ARCHIVE…",
		Short: "Delete archives",
		Long: `Delete archives, by id or name, or those that flags select: all of the flags must fit, as in firn archive list.

What a snapshot needs is refused, and so is what has not reached the vault's minimum storage duration: it would be
charged for all the same. Of what flags select such archives are left out, and the current versions of items, and
what Firn stored as a part of a backup, for which firn prune is there.`,
		Example: example("firn archive delete photos holiday.iso", "firn archive delete photos --older 730d --match 'mail-*' --yes", "firn archive delete photos id:NkbByEejwEggmBz2fTHgJrg0XBoDfjP4q6iu87-TjhqG6eGoOY9Z8i1_AUyUsuhPAdTqLHy8pTl5nfCFJmDl2yEZONi5L26Omw12vcs01MNGntHEQL8MBfGlqrEXAMPLEArchiveId"),
		Args:    args(1, -1, "a vault, and archives"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.check(cmd, args[1:], force); err != nil {
				return err
			}
			if len(args) == 1 {
				return c.deleteSelected(cmd, args[0], s, early)
			}
			return c.deleteArchives(cmd, args[0], args[1:], plain.DeleteOptions{Force: force, AllowEarly: early})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "delete even what a snapshot needs: it cannot be restored any more")
	cmd.Flags().BoolVar(&early, "allow-early-delete", false, "delete before the minimum storage duration is over, which is charged for")
	s.addTo(cmd.Flags())
	return cmd
}

func (c *command) deleteArchives(cmd *cobra.Command, vault string, refs []string, o plain.DeleteOptions) error {
	ctx := cmd.Context()
	a, v, err := c.plainVault(cmd, vault)
	if err != nil {
		return err
	}
	var list []catalog.ArchiveRecord
	var known []string
	for _, ref := range refs {
		id, isID := strings.CutPrefix(ref, "id:")
		if _, err := v.Find(ctx, ref); isID && o.AllowEarly && errors.Is(err, plain.ErrNotKnown) && v.Store.Traits().ListLag > 0 {
			list = append(list, catalog.ArchiveRecord{Vault: v.URL, Archive: coldstore.Archive{ID: id}}) // the vault knows
			continue
		}
		known = append(known, ref)
	}
	found, err := c.findArchives(ctx, v, known)
	if err != nil {
		return err
	}
	list = append(list, found...)
	return c.deleteThem(ctx, a, v, list, o)
}

// deleteThem deletes archives.
func (c *command) deleteThem(ctx context.Context, a *app.App, v *plain.Vault, list []catalog.ArchiveRecord, o plain.DeleteOptions) error {
	run, err := a.BeginRun(ctx, "archive delete", "")
	if err != nil {
		return err
	}
	n := 0
	err = v.Delete(ctx, list, o, func(r catalog.ArchiveRecord) {
		n++
		run.Info("deleted", "archive", r.ID, "name", r.Name, "bytes", r.Size)
		if c.json {
			_ = c.line(archiveJSON(r)) // a failed write is kept
		} else {
			c.talk("deleted %s (%s)", plain.Title(r), deletedSize(&r))
		}
	})
	young := (*plain.TooYoung)(nil)
	switch {
	case errors.As(err, &young):
		err = withHint(failure.Wrap(failure.Failed, err), "--allow-early-delete deletes it all the same%s", earlyFee(v.URL, v.Store, young, a.Now()))
	case failure.KindOf(err) == failure.Usage:
		err = withHint(failure.Wrap(failure.Failed, err), "--force deletes it all the same, and the snapshot is lost")
	}
	return errors.Join(err, run.End(ctx, c.codeOf(ctx, err), plural(int64(n), "archive")+" deleted"))
}

// earlyFee says what deleting too early costs, where that is known.
func earlyFee(url string, s coldstore.Lister, y *plain.TooYoung, now time.Time) string {
	place, billed := app.Place(url, s)
	t, err := cost.Prices()
	if !billed || err != nil || y.Until.IsZero() {
		return ""
	}
	fee, err := t.EarlyDeletion(place, []cost.Stored{{Bytes: y.Archive.Size, Created: y.Archive.Created}}, now)
	if err != nil {
		return ", at an unknown price"
	}
	return ", for " + fee.String()
}

func newArchiveUploads(c *command) *cobra.Command {
	var abort string
	cmd := &cobra.Command{
		Use:         "uploads VAULT",
		Annotations: lists(),
		Short:       "List unfinished uploads, or give one up",
		Long: `List the uploads of a vault that were begun and not finished, of Firn and of other programs. What they hold is
charged for. Those of files go on when the same upload is started again.`,
		Example: example("firn archive uploads photos", "firn archive uploads photos --abort ID"),
		Args:    args(1, 1, "one vault"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := given(cmd, "abort"); err != nil {
				return err
			}
			_, v, err := c.plainVault(cmd, args[0])
			if err != nil {
				return err
			}
			if abort != "" {
				if err := v.AbortUpload(cmd.Context(), abort); err != nil {
					return err
				}
				c.talk("gave up %s", abort)
				return nil
			}
			return c.listUploads(cmd.Context(), v)
		},
	}
	cmd.Flags().StringVar(&abort, "abort", "", "give up the upload of that `ID`; what it holds is thrown away")
	return cmd
}

// jsonUpload is one unfinished upload. docs/reference/archive-commands.md.
type jsonUpload struct {
	Upload      string  `json:"upload"`
	Description string  `json:"description"`
	PartSize    int64   `json:"part_size"`
	Sent        int64   `json:"sent"`
	Begun       *string `json:"begun,omitempty"`
	jsonPath
	Size *int64 `json:"size,omitempty"`
}

func (c *command) listUploads(ctx context.Context, v *plain.Vault) error {
	list := []jsonUpload{}
	t := newTable(">SENT", ">OF", "BEGUN", "ID", "DESCRIPTION")
	err := v.Uploads(ctx, func(u coldstore.Upload, f catalog.FileUpload) error {
		sent, err := v.Sent(ctx, u.ID)
		if errors.Is(err, coldstore.ErrNotFound) {
			return nil // it ended meanwhile
		}
		if err != nil {
			return err
		}
		j := jsonUpload{Upload: u.ID, Description: u.Description, PartSize: u.PartSize, Sent: sent, Begun: stampJSON(u.Created)}
		of := "?"
		if f.UploadID != "" {
			j.jsonPath, j.Size, of = pathJSON(f.Path), &f.Size, units.Size(f.Size)
		}
		list = append(list, j)
		t.row(units.Size(sent), of, c.stamp(u.Created), clean(u.ID), clean(u.Description))
		return nil
	})
	if err != nil {
		return err
	}
	if c.json {
		return c.document(list)
	}
	t.print(c.output)
	return nil
}

// localName is the file that an archive is retrieved to where nothing else is said.
func localName(r catalog.ArchiveRecord) string {
	title := plain.Title(r)
	if _, ok := foreign.Decode(r.Description); ok && r.Name == "" { // it may come from another system
		title = foreign.SafeName(title)
	}
	name := filepath.Base(filepath.FromSlash(strings.TrimRight(title, "/")))
	if name == "." || name == ".." || name == "/" || strings.ContainsRune(name, 0) || len(name) > 200 {
		name = r.ID
	}
	if strings.ContainsAny(name, "/\x00") || len(name) > 200 {
		name = "archive"
	}
	return name
}
