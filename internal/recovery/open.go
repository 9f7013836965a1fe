package recovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/retrieval"
)

// refusal is why a manifest is not recorded, as opposed to errors that end the run.
type refusal struct {
	Problem
}

func (f *refusal) Error() string { return f.Reason }

func refuse(k Kind, format string, args ...any) error {
	return &refusal{Problem{Kind: k, Reason: fmt.Sprintf(format, args...)}}
}

// kindOf sorts an error of reading a manifest; ok is false for one that ends the run.
func kindOf(err error) (k Kind, ok bool) {
	var f *refusal
	switch {
	case errors.As(err, &f):
		return f.Kind, true
	case errors.Is(err, codec.ErrNoKey):
		return NoKey, true
	case retrieval.IsDamage(err):
		return Damaged, true
	case strings.Contains(err.Error(), "needs a newer Firn"):
		return Newer, true
	}
	return "", false
}

func (r *run) skippable(err error) bool {
	_, ok := kindOf(err)
	return ok
}

// open opens the manifest in an archive, as far as its header.
func (r *run) open(ctx context.Context, a coldstore.Archive) (*manifest.Reader, io.Closer, error) {
	packed, err := packingOf(a)
	if err != nil {
		return nil, nil, err
	}
	rt, err := r.desk.Ask(ctx, a.ID, coldstore.Range{})
	if err != nil {
		return nil, nil, err
	}
	if !rt.Ready {
		return nil, nil, fmt.Errorf("archive %s: %w", a.ID, coldstore.ErrNotReady)
	}
	rc, err := r.desk.OpenWhole(ctx, rt, a.Size, a.TreeHash, packed.Compress, packed.Encrypt)
	if err != nil {
		return nil, nil, err
	}
	m, err := manifest.NewReader(rc)
	if err != nil {
		rc.Close()
		return nil, nil, err
	}
	return m, rc, nil
}

// packingOf tells how a manifest is packed: its description does, or else the endings of its name.
func packingOf(a coldstore.Archive) (p codec.Packing, err error) {
	if d, ok := manifest.ParseDescription(a.Description); ok && len(d.Codecs) > 0 {
		p, err = codec.PackingOf(d.Codecs)
	} else {
		_, exts, _ := strings.Cut(a.ID[strings.LastIndexByte(a.ID, '/')+1:], ".jsonl")
		p, err = codec.PackingOfExts(exts)
	}
	if err != nil {
		return p, refuse(Newer, "archive %s: %v", a.ID, err)
	}
	return p, nil
}

// peek reads a manifest's header, which proves nothing yet.
func (r *run) peek(ctx context.Context, a coldstore.Archive) (manifest.Header, error) {
	m, c, err := r.open(ctx, a)
	if err != nil {
		return manifest.Header{}, err
	}
	defer c.Close()
	return m.Header(), nil
}
