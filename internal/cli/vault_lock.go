package cli

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
)

const lockWhat = "locks"

func newVaultLock(c *command) *cobra.Command {
	return parent("lock", "Lock a vault's policy for ever",
		`Lock a vault: put a policy in force that nobody can take back, not even Amazon.
It is done in two steps. begin puts the policy in force to be tried, for a day.
complete makes it stand for ever; abort takes it back.`,
		newVaultLockShow(c), newVaultLockBegin(c), newVaultLockComplete(c),
		onVault(c, "abort VAULT", "Take back a lock that is not complete", example("firn vault lock abort glacier://eu-west-1/photos"), lockWhat, 1, 1, "one vault",
			func(cmd *cobra.Command, v coldstore.VaultLocker, url string, _ []string) error {
				if err := administer(cmd.Context(), func() error { return v.AbortVaultLock(cmd.Context()) }); err != nil {
					return err
				}
				return c.app.DropVaultLock(url)
			}),
	)
}

type jsonLock struct {
	State   string  `json:"state"`
	Created *string `json:"created,omitempty"`
	Expires *string `json:"expires,omitempty"`
	Policy  any     `json:"policy"`
}

func lockJSON(l coldstore.VaultLock) jsonLock {
	return jsonLock{string(l.State), stampJSON(l.Created), stampJSON(l.Expires), rawJSON(l.Policy)}
}

// lockText says how a lock stands.
func (c *command) lockText(l coldstore.VaultLock) string {
	if l.State == coldstore.Locked {
		return "locked for ever since " + c.stamp(l.Created)
	}
	return "in force to be tried; falls away at " + c.stamp(l.Expires) + " unless it is completed"
}

func newVaultLockShow(c *command) *cobra.Command {
	return onVault(c, "show VAULT", "Show the lock and its policy", example("firn vault lock show glacier://eu-west-1/photos"), lockWhat, 1, 1, "one vault",
		func(cmd *cobra.Command, v coldstore.VaultLocker, url string, _ []string) error {
			var l coldstore.VaultLock
			err := administer(cmd.Context(), func() (err error) { l, err = v.VaultLock(cmd.Context()); return err })
			if err != nil {
				return err
			}
			if c.json {
				return c.document(lockJSON(l))
			}
			c.talk("%s: %s", url, c.lockText(l))
			c.showPolicy(l.Policy)
			return nil
		})
}

// showPolicyTalk shows a policy to whoever is to confirm it.
func (c *command) showPolicyTalk(policy string) {
	for line := range strings.SplitSeq(strings.TrimRight(policy, "\n"), "\n") {
		c.err("  ", line) // with --quiet too: nobody shall lock what they have not seen
	}
}

func newVaultLockBegin(c *command) *cobra.Command {
	var confirm string
	cmd := onVault(c, "begin VAULT FILE", "Put a policy in force for a day, to be tried", example("firn vault lock begin glacier://eu-west-1/photos policy.json"), lockWhat, 2, 2, "a vault and a file",
		func(cmd *cobra.Command, v coldstore.VaultLocker, url string, args []string) error {
			policy, err := c.policyText(args[0])
			if err != nil {
				return err
			}
			c.err("", "The policy to lock "+url+" with:")
			c.showPolicyTalk(policy)
			const what = "It will be in force for a day, to be tried. If you complete the lock within that day, it stands for ever:\nnobody can change or remove it, not even Amazon, as long as there are archives in the vault."
			if err := c.confirm(cmd.Context(), url, confirm, what); err != nil {
				return err
			}
			id, err := v.BeginVaultLock(cmd.Context(), policy) // never twice: the second is refused, and the id of the first would be lost
			if err != nil {
				return withHint(adminError(err), "firn vault lock show tells whether one was begun; firn vault lock abort takes it back")
			}
			kept := c.app.KeepVaultLock(app.VaultLockBegun{Vault: url, ID: id, At: c.app.Now()})
			if c.json {
				return errors.Join(c.document(map[string]string{"id": id}), kept)
			}
			c.printf("%s\n", clean(id))
			c.talk("in force for a day; firn vault lock complete makes it stand for ever, firn vault lock abort takes it back")
			return kept
		})
	cmd.Flags().StringVar(&confirm, "confirm", "", "the vault's `NAME`, instead of typing it on the terminal")
	return cmd
}

func newVaultLockComplete(c *command) *cobra.Command {
	var confirm string
	cmd := onVault(c, "complete VAULT [LOCK-ID]", "Make the policy that was begun stand for ever", example("firn vault lock complete glacier://eu-west-1/photos"), lockWhat, 1, 2, "a vault, and the lock's id where it was begun elsewhere",
		func(cmd *cobra.Command, v coldstore.VaultLocker, url string, args []string) error {
			ctx := cmd.Context()
			var l coldstore.VaultLock
			if err := administer(ctx, func() (err error) { l, err = v.VaultLock(ctx); return err }); err != nil {
				return err
			}
			if l.State == coldstore.Locked {
				c.talk("%s: %s", url, c.lockText(l))
				return c.app.DropVaultLock(url)
			}
			kept, err := c.app.VaultLockKept(url)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				kept.ID = strings.TrimPrefix(args[0], "id:") // by which one that begins with - is no flag
			}
			if kept.ID == "" {
				return withHint(usage("%s: the lock was not begun on this machine", url), "give the id that firn vault lock begin printed")
			}
			c.err("", fmt.Sprintf("The policy of %s, begun at %s:", url, c.stamp(l.Created)))
			c.showPolicyTalk(l.Policy)
			left := l.Expires.Sub(c.env.Now()).Round(time.Minute)
			c.talk("%s to decide in", left)
			const what = "IT WILL STAND FOR EVER. Nobody can change or remove it, not even Amazon, as long as there are archives in the vault."
			if err := c.confirm(ctx, url, confirm, what); err != nil {
				return err
			}
			if err := administer(ctx, func() error { return v.CompleteVaultLock(ctx, kept.ID) }); err != nil {
				return err
			}
			// It is what the service says now that counts: an answer may have been lost.
			if err := administer(ctx, func() (err error) { l, err = v.VaultLock(ctx); return err }); err != nil {
				return err
			}
			if l.State != coldstore.Locked {
				return failure.Errorf(failure.Failed, "%s: the service says that the lock is %s", url, l.State)
			}
			c.talk("%s: %s", url, c.lockText(l))
			return c.app.DropVaultLock(url)
		})
	cmd.Flags().StringVar(&confirm, "confirm", "", "the vault's `NAME`, instead of typing it on the terminal")
	return cmd
}
