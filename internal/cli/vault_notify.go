package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
)

func notifyEvents() []string {
	return []string{"ArchiveRetrievalCompleted", "InventoryRetrievalCompleted"}
}

func newVaultNotify(c *command) *cobra.Command {
	const what = "notifications"
	return parent("notify", "Show and change whom a vault tells that jobs are done",
		`Show and change whom a vault tells that jobs are done. It tells a topic of SNS, and that tells those who have
subscribed to it: by mail, by https, in a queue. set makes the topic where there is none, and subscribes.`,
		onVault(c, "show VAULT", "Show which topic the vault tells", example("firn vault notify show glacier://eu-west-1/photos"), what, 1, 1, "one vault", func(cmd *cobra.Command, v coldstore.Notifier, _ string, _ []string) error {
			var n coldstore.Notifications
			err := administer(cmd.Context(), func() (err error) { n, err = v.Notifications(cmd.Context()); return err })
			if err != nil {
				return err
			}
			if c.json {
				return c.document(jsonNotify{n.Topic, n.Events})
			}
			c.printf("%s %s\n", clean(n.Topic), clean(strings.Join(n.Events, ",")))
			return nil
		}),
		newNotifySet(c), newNotifySubscribe(c), newNotifyUnsubscribe(c), newNotifySubscriptions(c), newNotifyTopics(c),
		onVault(c, "delete VAULT", "Tell no topic any more; the topic and its subscriptions stay", example("firn vault notify delete glacier://eu-west-1/photos"), what, 1, 1, "one vault", func(cmd *cobra.Command, v coldstore.Notifier, _ string, _ []string) error {
			return administer(cmd.Context(), func() error { return v.DeleteNotifications(cmd.Context()) })
		}),
	)
}

type jsonNotify struct {
	Topic  string   `json:"topic"`
	Events []string `json:"events"`
}

func newNotifySet(c *command) *cobra.Command {
	var subscribe []string
	cmd := &cobra.Command{
		Use:   "set VAULT TOPIC [EVENT…]",
		Short: "Tell a topic of jobs that are done",
		Long: `Tell a topic of SNS of jobs that are done. TOPIC is an ARN, or a name: that topic is made where there is none.
--subscribe has the topic tell somebody; one who is subscribed already stays so. With glacier://REGION in place of
a vault, all vaults that the account has there tell the topic. Doing it again changes nothing.
An EVENT is ` + strings.Join(notifyEvents(), " or ") + `; without one it is told of all.`,
		Example: example("firn vault notify set photos firn-jobs --subscribe email:me@example.org",
			"firn vault notify set glacier://eu-west-1 firn-jobs --subscribe https://example.org/hook --subscribe arn:aws:sqs:eu-west-1:123456789012:jobs",
			"firn vault notify set photos arn:aws:sns:eu-west-1:123456789012:done ArchiveRetrievalCompleted"),
		Args: args(2, -1, "a vault, a topic and events"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.notifySet(cmd, args[0], args[1], args[2:], subscribe)
		},
	}
	cmd.Flags().StringArrayVar(&subscribe, "subscribe", nil, "have the topic tell `PROTOCOL:ENDPOINT`: email:me@example.org, https://…, the ARN of a queue; repeatable")
	return cmd
}

// telling is a vault that can tell a topic.
type telling struct {
	url string
	coldstore.Notifier
}

// tellers opens the vaults that vault stands for.
func (c *command) tellers(cmd *cobra.Command, vault string) (*app.App, []telling, error) {
	a, err := c.open(cmd)
	if err != nil {
		return nil, nil, err
	}
	urls, err := a.VaultsOf(cmd.Context(), vault)
	if err != nil {
		return nil, nil, adminError(err)
	}
	if len(urls) == 0 {
		return nil, nil, failure.Errorf(failure.NotFound, "%s: the account has no vault there", vault)
	}
	var list []telling
	for _, url := range urls {
		s, err := a.OpenStore(cmd.Context(), url, false)
		if err != nil {
			return nil, nil, err
		}
		n, err := ability[coldstore.Notifier](s, "notifications")
		if err != nil {
			return nil, nil, err
		}
		list = append(list, telling{url, n})
	}
	return a, list, nil
}

func (c *command) notifySet(cmd *cobra.Command, vault, topic string, events, subscribe []string) error {
	ctx := cmd.Context()
	if err := checkTopic(topic); err != nil {
		return err
	}
	if len(events) == 0 {
		events = notifyEvents()
	}
	for _, e := range events {
		if !slices.Contains(notifyEvents(), e) {
			return usage("%q is no event: %s are", e, strings.Join(notifyEvents(), " and "))
		}
	}
	asked, err := subscriptions(subscribe)
	if err != nil {
		return err
	}
	a, vaults, err := c.tellers(cmd, vault)
	if err != nil {
		return err
	}
	if len(asked) > 0 || !isARN(topic) {
		keeper, err := accountAbility[coldstore.TopicKeeper](ctx, a, vault, "SNS")
		if err != nil {
			return err
		}
		if !isARN(topic) {
			name := topic // which every attempt needs
			if err := administer(ctx, func() (err error) { topic, err = keeper.EnsureTopic(ctx, name); return err }); err != nil {
				return err
			}
		}
		if asked, err = c.subscribe(ctx, keeper, topic, asked); err != nil {
			return err
		}
	}
	out := jsonNotifySet{Topic: topic, Events: events, Vaults: []string{}, Subscriptions: subscriptionsJSON(asked)}
	for _, v := range vaults {
		n := coldstore.Notifications{Topic: topic, Events: events}
		if err := administer(ctx, func() error { return v.SetNotifications(ctx, n) }); err != nil {
			return err
		}
		c.talk("%s tells %s", v.url, topic)
		out.Vaults = append(out.Vaults, v.url)
	}
	if c.json {
		return c.document(out)
	}
	return nil
}

// jsonNotifySet is what firn vault notify set did. docs/reference/vault-commands.md.
type jsonNotifySet struct {
	Topic         string             `json:"topic"`
	Events        []string           `json:"events"`
	Vaults        []string           `json:"vaults"`
	Subscriptions []jsonSubscription `json:"subscriptions"`
}

// jsonSubscription is one who is told. docs/reference/vault-commands.md.
type jsonSubscription struct {
	Protocol string `json:"protocol"`
	Endpoint string `json:"endpoint"`
	Pending  bool   `json:"pending"`
	Topic    string `json:"topic"`
	ID       string `json:"id,omitempty"`
}

func subscriptionsJSON(list []coldstore.Subscription) []jsonSubscription {
	out := []jsonSubscription{}
	for _, s := range list {
		out = append(out, jsonSubscription{s.Protocol, s.Endpoint, s.Pending, s.Topic, s.ID})
	}
	return out
}

// checkTopic refuses what is neither a name nor the ARN of a topic.
func checkTopic(topic string) error {
	f := strings.Split(topic, ":")
	switch {
	case topic == "":
		return usage("the topic has no name")
	case isARN(topic) && (len(f) != 6 || f[1] == "" || f[2] != "sns" || f[3] == "" || f[4] == "" || f[5] == ""):
		return usage("%q is not the ARN of a topic: arn:aws:sns:REGION:ACCOUNT:NAME", topic)
	}
	return nil
}

func isARN(s string) bool { return strings.HasPrefix(s, "arn:") }

func protocols() []string {
	return []string{"email", "email-json", "http", "https", "sqs", "sms", "lambda", "firehose", "application"}
}

// subscriptions reads PROTOCOL:ENDPOINT; a URL and the ARN of a queue, a function or a stream tell the protocol themselves.
func subscriptions(texts []string) ([]coldstore.Subscription, error) {
	var list []coldstore.Subscription
	for _, t := range texts {
		protocol, endpoint, ok := strings.Cut(t, ":")
		switch {
		case strings.HasPrefix(endpoint, "//"):
			endpoint = t
		case isARN(t):
			if f := strings.SplitN(t, ":", 4); len(f) == 4 {
				protocol, endpoint = f[2], t
			}
		}
		if !ok || endpoint == "" || !slices.Contains(protocols(), protocol) {
			return nil, usage("%q is not PROTOCOL:ENDPOINT, such as email:me@example.org; protocols are %s", t, strings.Join(protocols(), ", "))
		}
		if strings.HasPrefix(protocol, "http") && !strings.HasPrefix(endpoint, protocol+"://") {
			return nil, usage("%q: an endpoint of %s begins with %s://", t, protocol, protocol)
		}
		if _, rest, found := strings.Cut(endpoint, "://"); found && strings.Contains(strings.SplitN(rest, "/", 2)[0], "@") {
			return nil, usage("a %s endpoint with a user and a password does not belong on a command line, where others see it", protocol)
		}
		list = append(list, coldstore.Subscription{Protocol: protocol, Endpoint: endpoint})
	}
	return list, nil
}

// subscribe has a topic tell all of a list, and says who must confirm that.
func (c *command) subscribe(ctx context.Context, keeper coldstore.TopicKeeper, topic string, list []coldstore.Subscription) ([]coldstore.Subscription, error) {
	var done []coldstore.Subscription
	for _, s := range list {
		s.Topic = topic
		if err := administer(ctx, func() (err error) { s, err = keeper.Subscribe(ctx, s); return err }); err != nil {
			return done, err
		}
		if s.Pending {
			c.talk("%s:%s is told once it has confirmed the message that SNS sends there now", s.Protocol, s.Endpoint)
		}
		done = append(done, s)
	}
	return done, nil
}

// topicOf opens SNS for a vault, or a region, and finds the topic that is meant: the one that is named, or else that which the vault tells.
// Of a region without a topic it is empty.
func (c *command) topicOf(cmd *cobra.Command, vault, topic string) (coldstore.TopicKeeper, string, error) {
	ctx := cmd.Context()
	if err := given(cmd, "topic"); err != nil {
		return nil, "", err
	}
	if topic != "" {
		if err := checkTopic(topic); err != nil {
			return nil, "", err
		}
	}
	a, err := c.open(cmd)
	if err != nil {
		return nil, "", err
	}
	keeper, err := accountAbility[coldstore.TopicKeeper](ctx, a, vault, "SNS")
	if err != nil || isARN(topic) {
		return keeper, topic, err
	}
	if topic != "" {
		arn := ""
		err := administer(ctx, func() (err error) { arn, err = keeper.FindTopic(ctx, topic); return err })
		return keeper, arn, err
	}
	if app.IsRegion(vault) {
		return keeper, "", nil
	}
	_, vaults, err := c.tellers(cmd, vault)
	if err != nil {
		return nil, "", err
	}
	err = administer(ctx, func() error {
		n, err := vaults[0].Notifications(ctx)
		topic = n.Topic
		return err
	})
	if failure.KindOf(err) == failure.NotFound {
		err = withHint(err, "firn vault notify set %s TOPIC has it tell one", vault)
	}
	return keeper, topic, err
}

// jsonTopic is a topic and the vaults that tell it. docs/reference/vault-commands.md.
type jsonTopic struct {
	Topic  string   `json:"topic"`
	Vaults []string `json:"vaults"`
}

func newNotifyTopics(c *command) *cobra.Command {
	return &cobra.Command{
		Use:         "topics glacier://REGION",
		Annotations: lists(),
		Short:       "List the topics of a region, and which vaults tell them",
		Long:        `List the topics of SNS that the account has in a region, or in that of a vault, and which of its vaults tell them.`,
		Example:     example("firn vault notify topics glacier://eu-west-1"),
		Args:        args(1, 1, "glacier://REGION, or a vault in it"),
		RunE:        func(cmd *cobra.Command, args []string) error { return c.listTopics(cmd, args[0]) },
	}
}

func (c *command) listTopics(cmd *cobra.Command, vault string) error {
	ctx := cmd.Context()
	a, err := c.open(cmd)
	if err != nil {
		return err
	}
	keeper, err := accountAbility[coldstore.TopicKeeper](ctx, a, vault, "SNS")
	if err != nil {
		return err
	}
	list := []jsonTopic{}
	err = administer(ctx, func() error {
		list = list[:0]
		return keeper.EachTopic(ctx, func(arn string) error { list = append(list, jsonTopic{arn, []string{}}); return nil })
	})
	if err != nil {
		return err
	}
	urls, err := a.VaultsOf(ctx, vault)
	if err != nil {
		return adminError(err)
	}
	for _, url := range urls {
		s, err := a.OpenStore(ctx, url, false)
		if err != nil {
			return err
		}
		v, err := ability[coldstore.Notifier](s, "notifications")
		if err != nil {
			return err
		}
		var n coldstore.Notifications
		err = administer(ctx, func() (err error) { n, err = v.Notifications(ctx); return err })
		if failure.KindOf(err) == failure.NotFound {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", url, err)
		}
		i := slices.IndexFunc(list, func(t jsonTopic) bool { return t.Topic == n.Topic })
		if i < 0 { // of another account, or deleted
			i, list = len(list), append(list, jsonTopic{n.Topic, nil})
		}
		list[i].Vaults = append(list[i].Vaults, url)
	}
	if c.json {
		return c.document(list)
	}
	t := newTable("TOPIC", "VAULTS")
	for _, x := range list {
		t.row(clean(x.Topic), dash(clean(strings.Join(x.Vaults, " "))))
	}
	t.print(c.output)
	return nil
}
