package main

import (
	"context"
	"errors"
	"os"
)

// packer is tar through a compressor, into one file.
type packer struct {
	packs, unpacks   string // its names
	compress, expand command
	gzip             bool // restored by tar xzf
}

const (
	whoPigz1 = "tar | pigz -1"
	whoPigz6 = "tar | pigz -6"
	whoXzf   = "tar xzf"
)

// packers are tar with each compressor that is there. The archive of pigz -6 is
// restored as everybody does, that of pigz -1 with pigz.
func packers() []contender {
	var list []contender
	if have("pigz") {
		list = append(list,
			&packer{packs: whoPigz1, unpacks: "pigz -d | tar x", compress: cmd("pigz", "-1"), expand: cmd("pigz", "-dc")},
			&packer{packs: whoPigz6, unpacks: whoXzf, compress: cmd("pigz", "-6"), gzip: true})
	}
	if have("zstd") {
		list = append(list, &packer{packs: "tar | zstd -T0", unpacks: "zstd -d | tar x", compress: cmd("zstd", "-q", "-T0", "-c"), expand: cmd("zstd", "-q", "-dc")})
	}
	return list
}

func (p *packer) names() (capture, restore string) { return p.packs, p.unpacks }

func (p *packer) incremental() bool { return false }

func (p *packer) prepare(context.Context, job) error { return nil }

func (p *packer) capture(ctx context.Context, j job) (c cost, err error) {
	out, err := os.Create(j.repo)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	return pipe(ctx, out, cmd("tar", "--create", "--file=-", "--directory="+j.live, "."), p.compress)
}

func (p *packer) restore(ctx context.Context, j job) (cost, error) {
	if err := os.Mkdir(j.out, 0o755); err != nil {
		return cost{}, err
	}
	if p.gzip {
		return run(ctx, cmd("tar", "--extract", "--gzip", "--file="+j.repo, "--directory="+j.out))
	}
	return pipe(ctx, nil, p.expand.plus(j.repo), cmd("tar", "--extract", "--file=-", "--directory="+j.out))
}
