package glaciervault

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sns/types"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/awsconn"
	"github.com/firn-backup/firn/internal/failure"
)

var _ coldstore.TopicKeeper = (*Account)(nil)

// topics is SNS in the account's region. It is another service than the vaults', at another address: the
// SDK's, or AWS_ENDPOINT_URL_SNS.
func (a *Account) topics() *sns.Client {
	return sns.NewFromConfig(a.cfg, func(o *sns.Options) { o.Retryer = aws.NopRetryer{} }) // callers repeat
}

// EnsureTopic makes the topic of that name, or finds it.
func (a *Account) EnsureTopic(ctx context.Context, name string) (string, error) {
	if !awsconn.Matches(`^[A-Za-z0-9_-]{1,256}$`, name) {
		return "", failure.Errorf(failure.Usage, "%q cannot be a topic's name, which has 1 to 256 of A-Z a-z 0-9 _ -", name)
	}
	out, err := a.topics().CreateTopic(ctx, &sns.CreateTopicInput{Name: &name})
	if err != nil {
		return "", failSNS(ctx, "make topic "+name, err)
	}
	return text(out.TopicArn), nil
}

// FindTopic finds the topic of that name among those of the region.
func (a *Account) FindTopic(ctx context.Context, name string) (string, error) {
	found := ""
	err := a.EachTopic(ctx, func(arn string) error {
		if arn[strings.LastIndexByte(arn, ':')+1:] == name {
			found = arn
			return errOneIsEnough
		}
		return nil
	})
	switch {
	case err != nil && !errors.Is(err, errOneIsEnough):
		return "", err
	case found == "":
		return "", fmt.Errorf("there is no topic %q in this region: %w", name, coldstore.ErrNotFound)
	}
	return found, nil
}

// EachTopic lists the topics of the account in the region, whatever they are for.
func (a *Account) EachTopic(ctx context.Context, fn func(arn string) error) error {
	pages := sns.NewListTopicsPaginator(a.topics(), &sns.ListTopicsInput{}, func(o *sns.ListTopicsPaginatorOptions) { o.StopOnDuplicateToken = true })
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return failSNS(ctx, "list topics", err)
		}
		for _, t := range page.Topics {
			if err := fn(text(t.TopicArn)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Subscribe asks SNS to tell an endpoint of what is published to a topic.
func (a *Account) Subscribe(ctx context.Context, s coldstore.Subscription) (coldstore.Subscription, error) {
	out, err := a.topics().Subscribe(ctx, &sns.SubscribeInput{TopicArn: &s.Topic, Protocol: &s.Protocol, Endpoint: &s.Endpoint})
	if err != nil {
		return s, failSNS(ctx, fmt.Sprintf("subscribe %s:%s to %s", s.Protocol, s.Endpoint, s.Topic), err)
	}
	s.ID, s.Pending = subscriptionID(text(out.SubscriptionArn))
	return s, nil
}

// subscriptionID tells an ARN from what SNS says in its place while nobody has confirmed.
func subscriptionID(arn string) (id string, pending bool) {
	if !strings.HasPrefix(arn, "arn:") {
		return "", true
	}
	return arn, false
}

// Unsubscribe takes a subscription away.
func (a *Account) Unsubscribe(ctx context.Context, id string) error {
	_, err := a.topics().Unsubscribe(ctx, &sns.UnsubscribeInput{SubscriptionArn: &id})
	if err = failSNS(ctx, "take subscription "+id+" away", err); errors.Is(err, coldstore.ErrNotFound) {
		return nil
	}
	return err
}

// EachSubscription lists the subscriptions of a topic, or of all topics of the region where it is empty.
func (a *Account) EachSubscription(ctx context.Context, topic string, fn func(coldstore.Subscription) error) error {
	each := func(list []types.Subscription) error {
		for _, s := range list {
			id, pending := subscriptionID(text(s.SubscriptionArn))
			if err := fn(coldstore.Subscription{ID: id, Topic: text(s.TopicArn), Protocol: text(s.Protocol), Endpoint: text(s.Endpoint), Pending: pending}); err != nil {
				return err
			}
		}
		return nil
	}
	if topic == "" {
		pages := sns.NewListSubscriptionsPaginator(a.topics(), &sns.ListSubscriptionsInput{}, func(o *sns.ListSubscriptionsPaginatorOptions) { o.StopOnDuplicateToken = true })
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return failSNS(ctx, "list subscriptions", err)
			}
			if err := each(page.Subscriptions); err != nil {
				return err
			}
		}
		return nil
	}
	pages := sns.NewListSubscriptionsByTopicPaginator(a.topics(), &sns.ListSubscriptionsByTopicInput{TopicArn: &topic},
		func(o *sns.ListSubscriptionsByTopicPaginatorOptions) { o.StopOnDuplicateToken = true })
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return failSNS(ctx, "list the subscriptions of "+topic, err)
		}
		if err := each(page.Subscriptions); err != nil {
			return err
		}
	}
	return nil
}

// failSNS is fail for answers of SNS. A nil error stays one.
func failSNS(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, awsconn.Classify(ctx, err, func(a awsconn.Answer) *awsconn.Error {
		if a.API == nil {
			return awsconn.OfStatus(a.Status, fmt.Sprintf("answered with status %d and nothing that SNS says", a.Status))
		}
		e := ofService(a.API, a.Status, a.RequestID)
		switch e.Code {
		case "NotFound", "NotFoundException":
			e.Kinds = []error{coldstore.ErrNotFound}
		case "InvalidParameter", "InvalidParameterException", "InvalidParameterValue", "ParameterValueInvalid", "ValidationError":
			e.Kinds = []error{coldstore.ErrInvalid}
		case "Throttled", "ThrottledException":
			e.Kinds = []error{coldstore.ErrThrottled}
		}
		return e
	}))
}
