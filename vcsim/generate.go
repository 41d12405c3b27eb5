package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/types"
)

// generateSpec adds hosts and VMs by the number, for sites that are too large to write down.
type generateSpec struct {
	Hosts    int      `json:"hosts"`
	User     string   `json:"user"`
	Password string   `json:"password"`
	VMs      int      `json:"vms"`
	Networks []string `json:"networks"`
	Power    string   `json:"power"`
}

// pvlanSpec is one entry of the switch's private VLAN map.
type pvlanSpec struct {
	Primary   int32  `json:"primary"`
	Secondary int32  `json:"secondary"`
	Type      string `json:"type"`
}

func (p pvlanSpec) entry() types.VMwareDVSPvlanMapEntry {
	return types.VMwareDVSPvlanMapEntry{PrimaryVlanId: p.Primary, SecondaryVlanId: p.Secondary, PvlanType: p.Type}
}

// generate writes down what the key generate asks for: hosts esx-gen-1 and so
// on, and VMs vm-gen-1 and so on, spread over them, or over the listed hosts
// where none is generated.
func (s *site) generate() error {
	g := s.Generate
	if g == nil {
		return nil
	}
	if g.Hosts < 0 {
		return &siteError{"generate.hosts", fmt.Sprint(g.Hosts), "0 or more"}
	}
	if g.VMs < 0 {
		return &siteError{"generate.vms", fmt.Sprint(g.VMs), "0 or more"}
	}
	if g.Hosts > 0 && g.User == "" {
		return &siteError{"generate.user", "missing", "the user name of all generated hosts"}
	}
	if g.Hosts > 0 && g.Password == "" {
		return &siteError{"generate.password", "missing", "the password of all generated hosts"}
	}
	homes := []string{}
	for _, h := range s.Hosts {
		homes = append(homes, h.Name)
	}
	if g.Hosts > 0 {
		homes = nil
	}
	for i := range g.Hosts {
		name := fmt.Sprintf("esx-gen-%d", i+1)
		homes = append(homes, name)
		s.Hosts = append(s.Hosts, hostSpec{Name: name, User: g.User, Password: g.Password})
	}
	if g.VMs > 0 && len(homes) == 0 {
		return &siteError{"generate.vms", fmt.Sprint(g.VMs), "0 on a site without hosts"}
	}
	for i := range g.VMs {
		s.VMs = append(s.VMs, vmSpec{
			Name: fmt.Sprintf("vm-gen-%d", i+1), Host: homes[i%len(homes)], Networks: g.Networks, Power: g.Power,
		})
	}
	return nil
}

func (s *site) checkPvlans() error {
	seen := map[int32]bool{}
	for i, p := range s.Pvlans {
		key := fmt.Sprintf("pvlans[%d]", i)
		if !slices.Contains(pvlanTypes, p.Type) {
			return &siteError{key + ".type", fmt.Sprintf("%q", p.Type), strings.Join(pvlanTypes, ", ")}
		}
		if !entryIsValid(p.entry()) {
			return &siteError{key, fmt.Sprintf("%d, %d", p.Primary, p.Secondary), "ids of 1 to 4094, alike for promiscuous and for no other"}
		}
		if seen[p.Secondary] {
			return &siteError{key + ".secondary", fmt.Sprint(p.Secondary), "an id that no other entry has"}
		}
		seen[p.Secondary] = true
	}
	return nil
}
