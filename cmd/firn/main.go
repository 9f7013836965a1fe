// Command firn backs up to cold storage and gets it back. Called by the name glacier it is
// glacier-cli. Everything it does is in internal/cli and internal/glaciercli; here are only the process's own things: arguments,
// streams, signals and the exit code.
package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/firn-backup/firn/internal/cli"
	"github.com/firn-backup/firn/internal/glaciercli"
)

// Set by the linker (see Makefile); empty in a build by `go run` or `go install`.
var version, commit, date string

// memoryLimit is where the garbage collector begins to work harder, in bytes: the
// buffers of a backup live for long and the collector would let as much again pile up.
const memoryLimit = 136 << 20

func main() {
	os.Exit(run())
}

// run lets a first signal end the work in good order, and a second one at once.
func run() int {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop)
	if name := filepath.Base(os.Args[0]); name == "glacier" || name == "glacier-cli" || name == "glcr" {
		// git-annex starts it twice for each thing that it does: most end before anything is worth collecting.
		debug.SetGCPercent(400)
		return glaciercli.Run(ctx, glaciercli.Env{
			Args:      os.Args[1:],
			Stdin:     os.Stdin,
			Stdout:    os.Stdout,
			Stderr:    os.Stderr,
			LookupEnv: os.LookupEnv,
			Now:       time.Now,
		})
	}
	return cli.Run(ctx, cli.Env{
		Args:      os.Args[1:],
		Stdin:     os.Stdin,
		Stdout:    os.Stdout,
		Stderr:    os.Stderr,
		LookupEnv: os.LookupEnv,
		Now:       time.Now,
		Build:     cli.Build{Version: version, Commit: commit, Date: date},
	})
}
