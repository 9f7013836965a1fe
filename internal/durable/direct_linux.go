package durable

import "syscall"

const directFlag = syscall.O_DIRECT

// refused says that a file system does not do I/O past its cache, or not as this was asked (open(2), "O_DIRECT").
func refused(err error) bool { return err == syscall.EINVAL || err == syscall.EOPNOTSUPP }
