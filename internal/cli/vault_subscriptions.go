package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
)

func newNotifySubscribe(c *command) *cobra.Command {
	var topic string
	cmd := &cobra.Command{
		Use:   "subscribe VAULT PROTOCOL:ENDPOINT…",
		Short: "Have the topic that a vault tells tell somebody",
		Long: `Have the topic that a vault tells, or the one of --topic, tell somebody. SNS sends endpoints by mail and by http
a message first, in which they confirm that they want to be told. A queue must let the topic write to it.`,
		Example: example("firn vault notify subscribe photos email:me@example.org", "firn vault notify subscribe glacier://eu-west-1 --topic firn-jobs https://example.org/hook"),
		Args:    args(2, -1, "a vault and endpoints"),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := subscriptions(args[1:])
			if err != nil {
				return err
			}
			keeper, arn, err := c.topicOf(cmd, args[0], topic)
			if err != nil {
				return err
			}
			if arn == "" {
				return usage("%s is a region: --topic says which topic", args[0])
			}
			if list, err = c.subscribe(cmd.Context(), keeper, arn, list); err == nil && c.json {
				err = c.document(subscriptionsJSON(list))
			}
			return err
		},
	}
	cmd.Annotations = lists()
	cmd.Flags().StringVar(&topic, "topic", "", "that `TOPIC`, a name or an ARN, instead of the one that the vault tells")
	return cmd
}

func newNotifyUnsubscribe(c *command) *cobra.Command {
	var topic string
	cmd := &cobra.Command{
		Use:   "unsubscribe VAULT PROTOCOL:ENDPOINT|ID…",
		Short: "Have the topic that a vault tells tell somebody no more",
		Long: `Have the topic that a vault tells, or the one of --topic, tell somebody no more. An endpoint that has not confirmed yet
cannot be taken away: SNS forgets it by itself.`,
		Example: example("firn vault notify unsubscribe photos email:me@example.org"),
		Args:    args(2, -1, "a vault and endpoints"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.unsubscribe(cmd, args[0], topic, args[1:])
		},
	}
	cmd.Flags().StringVar(&topic, "topic", "", "that `TOPIC`, a name or an ARN, instead of the one that the vault tells")
	return cmd
}

func (c *command) unsubscribe(cmd *cobra.Command, vault, topic string, refs []string) error {
	ctx := cmd.Context()
	match := map[string]func(coldstore.Subscription) bool{}
	for _, ref := range refs {
		if isARN(ref) && strings.Contains(ref, ":sns:") {
			match[ref] = func(s coldstore.Subscription) bool { return s.ID == ref }
			continue
		}
		w, err := subscriptions([]string{ref})
		if err != nil {
			return err
		}
		match[ref] = func(s coldstore.Subscription) bool { return s.Protocol == w[0].Protocol && s.Endpoint == w[0].Endpoint }
	}
	keeper, arn, err := c.topicOf(cmd, vault, topic)
	if err != nil {
		return err
	}
	if arn == "" { // what else is told there is no affair of the vaults'
		return usage("%s is a region: --topic says which topic", vault)
	}
	there, err := listSubscriptions(ctx, keeper, arn)
	if err != nil {
		return err
	}
	var ids []string
	for _, ref := range refs {
		n := 0
		for _, s := range there {
			if !match[ref](s) {
				continue
			}
			if n++; s.Pending {
				return failure.Errorf(failure.Failed, "%s has not confirmed yet: SNS forgets it by itself after some days", ref)
			}
			ids = append(ids, s.ID)
		}
		if n == 0 {
			return withHint(failure.Errorf(failure.NotFound, "%s is not subscribed", ref), "firn vault notify subscriptions %s lists all", vault)
		}
	}
	for _, id := range ids {
		if err := administer(ctx, func() error { return keeper.Unsubscribe(ctx, id) }); err != nil {
			return err
		}
	}
	return nil
}

func listSubscriptions(ctx context.Context, keeper coldstore.TopicKeeper, topic string) ([]coldstore.Subscription, error) {
	var list []coldstore.Subscription
	err := administer(ctx, func() error {
		list = list[:0]
		return keeper.EachSubscription(ctx, topic, func(s coldstore.Subscription) error { list = append(list, s); return nil })
	})
	return list, err
}

func newNotifySubscriptions(c *command) *cobra.Command {
	var topic string
	cmd := &cobra.Command{
		Use:         "subscriptions VAULT",
		Annotations: lists(),
		Short:       "List who is told by the topic that a vault tells",
		Long:        `List who is told by the topic that a vault tells, or by the one of --topic. With glacier://REGION, the subscriptions of all topics there.`,
		Example:     example("firn vault notify subscriptions photos", "firn vault notify subscriptions glacier://eu-west-1 --format csv"),
		Args:        args(1, 1, "one vault, or glacier://REGION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			keeper, arn, err := c.topicOf(cmd, args[0], topic)
			if err != nil {
				return err
			}
			list, err := listSubscriptions(cmd.Context(), keeper, arn)
			if err != nil {
				return err
			}
			if c.json {
				return c.document(subscriptionsJSON(list))
			}
			t := newTable("PROTOCOL", "ENDPOINT", "STATE", "TOPIC", "ID")
			for _, s := range list {
				state := "confirmed"
				if s.Pending {
					state = "pending"
				}
				t.row(clean(s.Protocol), clean(s.Endpoint), state, clean(s.Topic), dash(clean(s.ID)))
			}
			t.print(c.output)
			return nil
		},
	}
	cmd.Flags().StringVar(&topic, "topic", "", "that `TOPIC`, a name or an ARN, instead of the one that the vault tells")
	return cmd
}
