package docker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"syscall"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/go-connections/nat"

	"github.com/tiny-forge/snap/pkg/runtime"
)

// port is one published port of the host.
type port struct {
	address  string // "": every one
	number   uint16
	protocol string
}

func (p port) String() string {
	return net.JoinHostPort(p.address, strconv.Itoa(int(p.number))) + "/" + p.protocol
}

// meets reports whether two cannot be published at once.
func (p port) meets(o port) bool {
	return p.number == o.number && p.protocol == o.protocol &&
		(p.address == o.address || everyAddress(p.address) || everyAddress(o.address))
}

func everyAddress(address string) bool {
	a, err := netip.ParseAddr(address)
	return address == "" || err == nil && a.IsUnspecified()
}

// portsOf returns the host ports that a config fixes. One that the engine
// chooses itself, alone or from a range, cannot be taken.
func portsOf(specs []string) ([]port, error) {
	_, bindings, err := nat.ParsePortSpecs(specs)
	if err != nil {
		return nil, err
	}
	var ports []port
	for key, hosts := range bindings {
		for _, h := range hosts {
			ports = appendPort(ports, h.HostIP, h.HostPort, key.Proto())
		}
	}
	return ports, nil
}

func appendPort(ports []port, address, number, protocol string) []port {
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 {
		return ports
	}
	return append(ports, port{address, uint16(n), protocol})
}

// checkPorts returns runtime.ErrPortTaken for each port that neither the workload's own
// containers publish nor anybody could.
func (e *engine) checkPorts(ctx context.Context, ports []port, own []*box) error {
	if len(ports) == 0 {
		return nil
	}
	running, err := e.api.ContainerList(ctx, container.ListOptions{})
	if err != nil {
		return failed(err, "list containers")
	}
	var errs []error
	for _, p := range ports {
		errs = append(errs, checkPort(p, running, own))
	}
	return errors.Join(errs...)
}

func checkPort(p port, running []container.Summary, own []*box) error {
	ours := false
	for _, c := range running {
		for _, cp := range c.Ports {
			if !p.meets(port{cp.IP, cp.PublicPort, cp.Type}) {
				continue
			}
			if !slices.ContainsFunc(own, func(b *box) bool { return b.ID == c.ID }) {
				return fmt.Errorf("port %s: %w: container %s publishes it", p, runtime.ErrPortTaken, nameOf(c))
			}
			ours = true
		}
	}
	if ours {
		return nil
	}
	err := tryBind(p)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("port %s: %w: a process of this host listens on it", p, runtime.ErrPortTaken)
	case errors.Is(err, syscall.EACCES):
		return nil // low ports are for root; the engine is root
	case err != nil:
		return fmt.Errorf("port %s cannot be published: %w", p, err)
	}
	return nil
}

func tryBind(p port) error {
	at := net.JoinHostPort(p.address, strconv.Itoa(int(p.number)))
	switch p.protocol {
	case "tcp":
		l, err := net.Listen("tcp", at)
		if err != nil {
			return err
		}
		return l.Close()
	case "udp":
		l, err := net.ListenPacket("udp", at)
		if err != nil {
			return err
		}
		return l.Close()
	}
	return nil
}

func nameOf(c container.Summary) string {
	if len(c.Names) == 0 {
		return c.ID
	}
	return c.Names[0][1:]
}
