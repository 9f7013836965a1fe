package progress

// Kind says what an event tells of. The words are those of `--json`.
type Kind string

const (
	Began   Kind = "began"   // Set, Snapshot: the work on a set began; Text: "full", "incremental", "resumed" …
	File    Kind = "file"    // Path was worked off; Text: what was done ("new", "changed", "metadata", "deleted", "restored", "verified" …), Bytes: its size
	Archive Kind = "archive" // Archive was stored, read or checked; N: its volume number (0: the manifest), Bytes: its size, Text: what was done
	Problem Kind = "problem" // Path (may be empty) could not be done as it should; Text: the reason, one line
	Notice  Kind = "notice"  // Text: one line that a person should read; nothing is wrong with the result
	Waiting Kind = "waiting" // the vault prepares Archive; Text: until when or why
	Summary Kind = "summary" // Text: the result in one line; Data: the same for programs
)

// Event is something that happened and is worth a line. Fields that Kind does
// not name are zero.
type Event struct {
	Kind     Kind
	Set      string // the set's name
	Snapshot string // the snapshot's id
	Path     string // bytes, as in a snapshot's entries
	Archive  string // the archive's id
	N        int
	Bytes    int64
	Text     string
	Data     any // marshals to a JSON object
}

// Watcher is told what happens. It may be called from several goroutines, must
// not block for long, and keeps nothing of the event's Data.
type Watcher func(Event)

// Tell calls w unless it is nil.
func (w Watcher) Tell(e Event) {
	if w != nil {
		w(e)
	}
}
