// Loads an object with cilium/ebpf, attaches its classifiers to ingress of the device that `lab check` names, and stays until it is ended:
// `lab check --loader cmd:./object-loader x.o`.
package main

import (
	"fmt"
	"net"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// BPF_TCX_INGRESS of enum bpf_attach_type, which came with Linux 6.6; the package of Debian 13 is older.
const tcxIngress = ebpf.AttachType(46)

func main() {
	device, err := net.InterfaceByName(os.Getenv("LAB_DEVICE"))
	exit(err)
	objects, err := ebpf.LoadCollection(os.Args[1])
	exit(err)
	for name, program := range objects.Programs {
		if program.Type() != ebpf.SchedCLS {
			continue
		}
		options := link.RawLinkOptions{Target: device.Index, Program: program, Attach: tcxIngress}
		_, err := link.AttachRawLink(options)
		exit(err)
		fmt.Println("attached", name)
	}
	time.Sleep(time.Hour)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%+v\n", err)
		os.Exit(1)
	}
}
