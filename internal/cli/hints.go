package cli

import (
	"errors"
	"fmt"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/backup"
	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/itemstore"
	"github.com/firn-backup/firn/internal/keyfile"
	"github.com/firn-backup/firn/internal/mirror"
	"github.com/firn-backup/firn/internal/restore"
)

// noKeyHint is for data that is encrypted for another key.
const noKeyHint = "firn key import brings a key file back from paper or a copy; where there is another one already, --identity FILE or identities in the config file"

// hinted is an error with advice for people.
type hinted struct {
	err  error
	hint string
}

func (h *hinted) Error() string { return h.err.Error() }
func (h *hinted) Unwrap() error { return h.err }

// withHint adds advice to an error. The format is fmt.Sprintf's.
func withHint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &hinted{err, fmt.Sprintf(format, args...)}
}

// hintFor is the advice that goes with err; empty: there is none. What a
// command said itself counts before what can be said of the error in general.
func hintFor(err error) string {
	if h := (*hinted)(nil); errors.As(err, &h) {
		return h.hint
	}
	for _, x := range []struct {
		err  error
		hint string
	}{
		{app.ErrNoCatalog, "firn backup PATH makes one; after a loss, firn recover VAULT rebuilds it"},
		{app.ErrNoBucket, "when it is there, firn vault create says whether it will do"},
		{app.ErrNoVault, "is it mounted? firn vault create URL makes a new one"},
		{backup.ErrBaseLost, "is the right disk mounted? firn verify tells what is missing; firn backup --full begins anew with a full snapshot"},
		{itemstore.ErrLost, "is the right disk mounted? firn verify tells what is missing; firn vault sync VAULT --fix forgets it, and the next run stores it again"},
		{mirror.ErrEmptied, "mount it; if it is meant to be empty, firn vault reconcile --allow-shrunk --commit deletes its archives"},
		{backup.ErrEmptied, "mount it; if it is meant to be empty, --allow-empty backs it up so"},
		{app.ErrBroken, "the archives in it may be whole; docs/howto/restore.md tells how to mend it, and how to read them without Firn"},
		{app.ErrNeverRun, "firn backup SET makes one; after a loss, firn recover VAULT finds those that there are"},
		{app.ErrNoSet, "firn snapshots lists the sets"},
		{app.ErrNameTaken, "--name NAME gives it another one, and so does a [set.NAME] in the config file"},
		{app.ErrAmbiguous, "write ./NAME for a path here, HOST/NAME for another machine's set"},
		{restore.ErrNotThere, "firn ls SET lists what is in it; firn find NAME looks in all snapshots"},
		{app.ErrNoKeyFile, "firn key import makes it from paper or from another key file; firn key new makes a new one"},
		{keyfile.ErrPassphrase, "it comes from FIRN_PASSPHRASE_FILE or FIRN_PASSPHRASE_COMMAND where one is set, else from the terminal"},
		{codec.ErrNoKey, noKeyHint},
	} {
		if errors.Is(err, x.err) {
			return x.hint
		}
	}
	if failure.KindOf(err) == failure.NotReady {
		return "run the same command again later"
	}
	return ""
}
