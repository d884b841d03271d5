package compose

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
)

// Hash is the hash with which Compose labels a container of a service
// ([LabelHash]): of the model as it is printed, without the keys
// that need no new container, and with the containers in place of the services that
// it joins (ServiceHash in pkg/compose/hash.go and resolveServiceReferences in
// convergence.go of docker/compose v2). Other versions may do it another way, so an
// equal hash proves that nothing has changed, and another one proves nothing.
func Hash(service json.RawMessage, container func(service string) string) (string, error) {
	text, err := edit(service, func(key string, value json.RawMessage) (json.RawMessage, error) {
		switch key {
		case "build", "pull_policy", "scale", "depends_on", "profiles":
			return nil, nil
		case "deploy":
			return edit(value, func(key string, value json.RawMessage) (json.RawMessage, error) {
				if key == "replicas" {
					return nil, nil
				}
				return value, nil
			})
		case "network_mode", "ipc", "pid":
			var mode string
			if json.Unmarshal(value, &mode) == nil {
				if name, joins := strings.CutPrefix(mode, "service:"); joins {
					return json.Marshal("container:" + container(name))
				}
			}
		case "volumes_from":
			var from []string
			if json.Unmarshal(value, &from) == nil {
				for i, spec := range from {
					name, rest, _ := strings.Cut(spec, ":")
					if from[i] = container(name); name == "container" {
						from[i], _, _ = strings.Cut(rest, ":")
					}
				}
				return json.Marshal(from)
			}
		}
		return value, nil
	})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// edit passes the members of a JSON object through change, in their order; nil drops
// one. The result has no blanks.
func edit(object json.RawMessage, change func(key string, value json.RawMessage) (json.RawMessage, error)) (json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(object))
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	out := bytes.NewBufferString("{")
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		if value, err = change(fmt.Sprint(key), value); err != nil {
			return nil, err
		}
		if value == nil {
			continue
		}
		if out.Len() > 1 {
			out.WriteByte(',')
		}
		name, err := json.Marshal(key)
		if err != nil {
			return nil, err
		}
		out.Write(name)
		out.WriteByte(':')
		if err := json.Compact(out, value); err != nil {
			return nil, err
		}
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}
