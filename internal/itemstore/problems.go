package itemstore

import "github.com/firn-backup/firn/internal/snapshot"

// maxProblems bounds Problems.Problem.
const maxProblems = 100

// Problems are what of a run could not be dealt with. The zero value has none.
type Problems struct {
	Problem []snapshot.Problem // the first 100; an observer sees all
	Bad     int64              // all
}

// Add notes one and returns it as one line for people. Callers see to it that there is one at a time.
func (l *Problems) Add(path string, err error) snapshot.Problem {
	p := snapshot.Problem{Path: path, Reason: oneLine(err)}
	l.Bad++
	if len(l.Problem) < maxProblems {
		l.Problem = append(l.Problem, p)
	}
	return p
}

// First is the first one, for people; empty: there is none.
func (l *Problems) First() string {
	if len(l.Problem) == 0 {
		return ""
	}
	return l.Problem[0].Path + ": " + l.Problem[0].Reason
}
