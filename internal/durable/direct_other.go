//go:build !linux

package durable

const directFlag = 0

func refused(error) bool { return true }
