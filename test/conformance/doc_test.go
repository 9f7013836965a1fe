// Package conformance tries the server of the Glacier API with clients that others made, unmodified: boto3, the
// AWS command line and the AWS SDK for Go; and, where those are too well-behaved,
// with plain HTTP.
package conformance
