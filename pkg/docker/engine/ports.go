package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"syscall"

	"github.com/docker/docker/api/types/container"

	"github.com/tiny-forge/snap/pkg/runtime"
)

// Port is one published port of the host, as docker compose config shows it.
type Port struct {
	Address  string `json:"host_ip"`   // "": every one
	Number   string `json:"published"` // "", "0" or a range: the engine chooses
	Protocol string `json:"protocol"`
}

func (p Port) String() string { return net.JoinHostPort(p.Address, p.Number) + "/" + p.Protocol }

// meets reports whether two ports cannot be published at once.
func (p Port) meets(o Port) bool {
	return p.Number == o.Number && p.Protocol == o.Protocol &&
		(p.Address == o.Address || everyAddress(p.Address) || everyAddress(o.Address))
}

func everyAddress(address string) bool { return address == "" || net.ParseIP(address).IsUnspecified() }

// CheckPorts returns [runtime.ErrPortTaken] for each port that a foreign container
// or a process of this host has. A port that the engine chooses cannot be taken.
func (e *Engine) CheckPorts(ctx context.Context, ports []Port, own []*Container) error {
	ports = slices.DeleteFunc(ports, func(p Port) bool {
		n, err := strconv.ParseUint(p.Number, 10, 16)
		return err != nil || n == 0
	})
	if len(ports) == 0 {
		return nil
	}
	running, err := e.API.ContainerList(ctx, container.ListOptions{})
	if err != nil {
		return Failed(err, "list containers")
	}
	var errs []error
	for _, p := range ports {
		errs = append(errs, checkPort(p, running, own))
	}
	return errors.Join(errs...)
}

func checkPort(p Port, running []container.Summary, own []*Container) error {
	ours := false
	for _, summary := range running {
		for _, cp := range summary.Ports {
			if !p.meets(Port{cp.IP, fmt.Sprint(cp.PublicPort), cp.Type}) {
				continue
			}
			if ByID(own, summary.ID) == nil {
				return fmt.Errorf("port %s: %w: container %s publishes it", p, runtime.ErrPortTaken, NameOf(summary))
			}
			ours = true
		}
	}
	if ours {
		return nil
	}
	switch err := tryBind(p); {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("port %s: %w: a process of this host listens on it", p, runtime.ErrPortTaken)
	case errors.Is(err, syscall.EACCES):
		return nil // low ports are for root; the engine is root
	case err != nil:
		return fmt.Errorf("port %s cannot be published: %w", p, err)
	}
	return nil
}

func tryBind(p Port) error {
	var l io.Closer
	var err error
	switch at := net.JoinHostPort(p.Address, p.Number); p.Protocol {
	case "tcp":
		l, err = net.Listen("tcp", at)
	case "udp":
		l, err = net.ListenPacket("udp", at)
	default:
		return nil
	}
	if err != nil {
		return err
	}
	return l.Close()
}

// NameOf returns the name of a container in a list, or its id where it has none.
func NameOf(c container.Summary) string {
	if len(c.Names) == 0 {
		return c.ID
	}
	return c.Names[0][1:]
}
