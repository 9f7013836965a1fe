package app

import (
	"fmt"
	"os"
	"os/exec"

	"github.com/firn-backup/firn/internal/failure"
)

// runPassphraseCommand runs the program of FIRN_PASSPHRASE_COMMAND by the shell.
// The first line that it prints is the passphrase; what it says goes to
// stderr, and it may ask on the terminal.
func runPassphraseCommand(command string) ([]byte, error) {
	cmd := exec.Command("/bin/sh", "-c", command)
	cmd.Stdin, cmd.Stderr = os.Stdin, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, failure.Errorf(failure.NoKey, "FIRN_PASSPHRASE_COMMAND: %w", err)
	}
	if line := firstLine(out); len(line) > 0 {
		return line, nil
	}
	return nil, fmt.Errorf("FIRN_PASSPHRASE_COMMAND printed nothing")
}
