package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/transfer"
)

// openVault opens the vault that a command names; empty is the default one.
func (c *command) openVault(cmd *cobra.Command, nameOrURL string) (a *app.App, url string, s coldstore.Store, err error) {
	if a, err = c.open(cmd); err != nil {
		return nil, "", nil, err
	}
	if url, err = a.KnownVaultURL(cmd.Context(), nameOrURL); err != nil {
		return nil, "", nil, err
	}
	s, err = a.OpenStore(cmd.Context(), url, false)
	return a, url, s, err
}

// given refuses flags that are given an empty text, as a shell makes of a variable that is not set: without their
// value the command would do more than was meant.
func given(cmd *cobra.Command, flags ...string) error {
	for _, name := range flags {
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed && f.Value.String() == "" {
			return usage("--%s is given without a value", name)
		}
	}
	return nil
}

// ability is what a vault can do beside keeping archives; what names it in the plural: "tags".
func ability[T any](s coldstore.Store, what string) (T, error) {
	x, ok := s.(T)
	if !ok {
		return x, usage("%s: vaults have no %s", s.Traits().Scheme, what)
	}
	return x, nil
}

// accountAbility is ability for what belongs to the account of a vault.
func accountAbility[T any](ctx context.Context, a *app.App, nameOrURL, what string) (T, error) {
	var none T
	acc, err := a.OpenAccount(ctx, nameOrURL)
	if err != nil {
		return none, err
	}
	x, ok := acc.(T)
	if !ok {
		return none, usage("%s: there is no %s", nameOrURL, what)
	}
	return x, nil
}

// administer calls f, again where the vault says that this may help, and gives its error a kind.
// f must be one that may be repeated.
func administer(ctx context.Context, f func() error) error {
	var err error
	for pause := time.Second; pause < 10*time.Second; pause *= 2 {
		err = f()
		if !errors.Is(err, coldstore.ErrTemporary) && !errors.Is(err, coldstore.ErrThrottled) && !errors.Is(err, coldstore.ErrInDoubt) {
			break
		}
		if transfer.Sleep(ctx, pause) != nil {
			return err
		}
	}
	return adminError(err)
}

// adminError gives an error of administration its kind.
func adminError(err error) error {
	switch {
	case err == nil || failure.KindOf(err) != failure.Failed:
	case errors.Is(err, coldstore.ErrNotFound):
		return failure.Wrap(failure.NotFound, err)
	case errors.Is(err, coldstore.ErrInvalid) || errors.Is(err, coldstore.ErrUnsupported):
		return failure.Wrap(failure.Usage, err)
	}
	return err
}

// vaultName is what a user types to confirm that a vault is meant: the last part of its URL's path.
func vaultName(url string) string {
	path, _, _ := strings.Cut(url, "?")
	path = strings.TrimRight(path, "/")
	return path[strings.LastIndexAny(path, "/:")+1:]
}

// confirm says what is about to be done, and returns nil when the user has typed the vault's name, on the command
// line (given) or on the terminal.
func (c *command) confirm(ctx context.Context, url, given, what string) error {
	name := vaultName(url)
	c.err("", what)
	if given == "" {
		tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
		if err != nil {
			return withHint(usage("this must be confirmed, and there is no terminal to ask on"), "--confirm %s says that you mean it", name)
		}
		defer tty.Close()
		if given, err = c.askLine(ctx, tty, "Type "+name+" to go on: "); err != nil {
			return err
		}
	}
	if given != name && given != url {
		return usage("%q is not %s: nothing was done", given, name)
	}
	return nil
}

// askLine reads a line from the terminal.
func (c *command) askLine(ctx context.Context, tty *os.File, prompt string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprint(tty, clean(prompt))
	type answer struct {
		text string
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		text, err := bufio.NewReader(tty).ReadString('\n')
		if errors.Is(err, io.EOF) {
			err = nil
		}
		done <- answer{strings.TrimSpace(text), err}
	}()
	select {
	case a := <-done:
		return a.text, a.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// readText reads a file, or stdin for -, of at most a megabyte.
func (c *command) readText(file string) (string, error) {
	in := c.env.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", failure.Wrap(failure.Usage, err)
		}
		defer f.Close()
		in = f
	}
	const most = 1 << 20
	text, err := io.ReadAll(io.LimitReader(in, most+1))
	if err == nil && len(text) > most {
		err = usage("%s: too long for a policy", file)
	}
	return string(text), err
}
