package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/keyfile"
)

func newKey(c *command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Make, show and trust keys",
		Long: `The key file holds two secrets: the identity that opens backups, and the seed that
signs them. It is made by the first backup. Without it nobody can read the
backups: print it with firn key show, and keep the page elsewhere.`,
		Args: cobra.ArbitraryArgs,
		RunE: needCommand,
	}
	cmd.AddCommand(newKeyNew(c), newKeyImport(c), newKeyShow(c), newKeyKept(c), newKeyTrust(c))
	return cmd
}

type jsonKey struct {
	File       string   `json:"file"`
	Created    *string  `json:"created,omitempty"`
	PublicKeys []string `json:"public_keys"`
	SigningKey string   `json:"signing_key,omitempty"`
	Passphrase bool     `json:"passphrase"`
	Kept       bool     `json:"kept"`
}

func keyJSON(a *app.App, k *keyfile.Key) jsonKey {
	return jsonKey{a.Paths.Key, stampJSON(k.Created()), k.Recipients(), k.SigningKey(), k.Wrapped(), a.KeyKept(k)}
}

func newKeyNew(c *command) *cobra.Command {
	var passphrase bool
	cmd := &cobra.Command{
		Use:   "new",
		Short: "Make the key file",
		Long: `Make the key file. One that exists is never overwritten. With --passphrase it is
encrypted, and a second file beside it holds what making backups needs: only
restoring asks for the passphrase. It is asked for on the terminal, or taken from
the file that FIRN_PASSPHRASE_FILE names, or from the program in
FIRN_PASSPHRASE_COMMAND.`,
		Example: example("firn key new --passphrase"),
		Args:    args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.open(cmd)
			if err != nil {
				return err
			}
			k, err := keyfile.New(a.Now(), nil)
			if err != nil {
				return err
			}
			return c.saveKey(a, k, passphrase)
		},
	}
	cmd.Flags().BoolVar(&passphrase, "passphrase", false, "protect it by a passphrase")
	return cmd
}

func newKeyImport(c *command) *cobra.Command {
	var passphrase bool
	cmd := &cobra.Command{
		Use:   "import [FILE]",
		Short: "Make the key file from the lines on paper, or from another key file",
		Long: `Make the key file from what firn key show printed, typed in, or from a key file.
Without FILE, or with "-", the standard input is read, until an end of file
(Ctrl-D). If the signing seed is missing, a new one is made. A key file that
exists is never overwritten.`,
		Example: example("firn key import /media/stick/key.txt", "firn key import"),
		Args:    args(0, 1, "one file at most"),
		RunE: func(cmd *cobra.Command, files []string) error {
			a, err := c.open(cmd)
			if err != nil {
				return err
			}
			// Before anybody types in a page.
			if err := noKeyYet(a); err != nil {
				return err
			}
			in := c.env.Stdin
			if len(files) == 1 && files[0] != "-" {
				f, err := os.Open(files[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			} else if isTerminal(in) {
				c.talk("Type in the lines of the page, then Ctrl-D:")
			}
			text, err := io.ReadAll(io.LimitReader(in, 1<<20))
			if err != nil {
				return fmt.Errorf("read key: %w", err)
			}
			k, err := keyfile.Import(string(text))
			if err != nil {
				return err
			}
			if k.Signer() == nil {
				if k, err = k.WithNewSigner(nil); err != nil {
					return err
				}
				c.warn("the signing seed was not among the lines: a new one was made. Trust the old public key with firn key trust")
			}
			return c.saveKey(a, k, passphrase)
		},
	}
	cmd.Flags().BoolVar(&passphrase, "passphrase", false, "protect it by a passphrase")
	return cmd
}

// noKeyYet is the refusal where there is a key file.
func noKeyYet(a *app.App) error {
	if _, err := os.Lstat(a.Paths.Key); err != nil {
		return nil // made, or refused, when it is written
	}
	return withHint(failure.Errorf(failure.Usage, "key file %s: %w", a.Paths.Key, fs.ErrExist),
		"firn key show prints it; to have another one, move it away and list it in identities of the config file, so that older backups can be read")
}

func (c *command) saveKey(a *app.App, k *keyfile.Key, protect bool) error {
	if err := noKeyYet(a); err != nil {
		return err
	}
	var pass []byte
	if protect {
		var err error
		if pass, err = a.NewPassphrase(); err != nil {
			return err
		}
	}
	if err := a.NewKey(k, pass); err != nil {
		return err
	}
	if c.json {
		return c.document(keyJSON(a, k))
	}
	c.talk("made the key %s\npublic key: %s\nsigning key: %s", a.Paths.Key, k.Recipient(), k.SigningKey())
	c.talk("Keep it: firn key show prints it for paper.")
	return nil
}

func newKeyShow(c *command) *cobra.Command {
	var public bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print the key for paper",
		Long: `Print the key so that it can be kept on paper: both secrets, and how to use them with
and without Firn. Whoever has the page can read the backups. --public and --json
print what is no secret.`,
		Example: example("firn key show | lp", "firn key show --public"),
		Args:    args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.open(cmd)
			if err != nil {
				return err
			}
			if public || c.json {
				k, err := keyfile.Load(a.Paths.Key, nil)
				if errors.Is(err, fs.ErrNotExist) {
					k, err = a.LoadKey() // says it its way
				}
				if err != nil {
					return err
				}
				if c.json {
					return c.document(keyJSON(a, k))
				}
				for _, r := range k.Recipients() {
					c.printf("%s\n", r)
				}
				if s := k.SigningKey(); s != "" {
					c.printf("%s\n", s)
				}
				return nil
			}
			k, err := a.LoadKey()
			if err != nil {
				return err
			}
			if len(k.Identities()) == 0 {
				return failure.Errorf(failure.NoKey, "%s: the identity is not in it; this machine can make backups and not read them", a.Paths.Key)
			}
			c.printf("%s", k.Paper())
			if err := c.failure(); err != nil {
				return err
			}
			return a.MarkKept(k)
		},
	}
	cmd.Flags().BoolVar(&public, "public", false, "print the public keys only")
	return cmd
}

func newKeyKept(c *command) *cobra.Command {
	return &cobra.Command{
		Use:     "kept",
		Short:   "Say that the key is kept, which ends the reminders",
		Example: example("firn key kept"),
		Args:    args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.open(cmd)
			if err != nil {
				return err
			}
			k, err := keyfile.Load(a.Paths.Key, nil)
			if errors.Is(err, fs.ErrNotExist) {
				_, err = a.LoadKey()
			}
			if err != nil {
				return err
			}
			return a.MarkKept(k)
		},
	}
}

func newKeyTrust(c *command) *cobra.Command {
	var note string
	cmd := &cobra.Command{
		Use:   "trust SIGNING-KEY",
		Short: "Believe the snapshots that another key has signed",
		Long: `Believe the snapshots that were signed by the secret of a public signing key
(ed25519:…, as firn key show --public prints it on the other machine): another
machine's, or your own before the last one was lost.`,
		Example: example("firn key trust ed25519:yElyUSyeRD4IkU5pn7xgG7D2iGtWxXNgGjmBpV5c0AY --note laptop"),
		Args:    args(1, 1, "one public signing key"),
		RunE: func(cmd *cobra.Command, keys []string) error {
			key, err := keyfile.ParseSigningKey(keys[0])
			if err != nil {
				return err
			}
			a, err := c.open(cmd)
			if err != nil {
				return err
			}
			db, err := a.Catalog(cmd.Context(), true)
			if err != nil {
				return err
			}
			if err := db.Trust(cmd.Context(), key, note); err != nil {
				return err
			}
			c.talk("trusted: %s", keyfile.FormatSigningKey(key))
			return nil
		},
	}
	cmd.Flags().StringVar(&note, "note", "", "a line about whose it is")
	return cmd
}
