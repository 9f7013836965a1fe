package manifest

var KnownMust = knownMust
