package main

import (
	"slices"
	"strconv"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// The port model: what a distributed switch knows about its portgroups and
// ports. Stock has none. Everything here is guarded by vcenter.mu.

// dvswitch is one distributed switch. Port keys are unique on the switch.
type dvswitch struct {
	self       ref
	uuid, name string
	nextKey    int
	cookie     int32
	ports      map[string]*dvport
	portgroups map[string]*portgroup
}

// portgroup is the part of a distributed portgroup that decides about its ports.
type portgroup struct {
	key, name  string
	binding    string
	uplink     bool
	autoExpand bool
	policy     types.VMwareDVSPortgroupPolicy
	inherited  *types.VMwareDVSPortSetting // the defaults, as ports show what they inherit
	ports      []string                    // keys, oldest first
}

// dvport is one port. A nil field of override is inherited from the portgroup.
type dvport struct {
	key, portgroup string
	uplink         bool
	name           string
	description    string
	scope          []ref
	override       *types.VMwareDVSPortSetting
	version        int

	nic       *nicID // nil: free
	mac       string
	peer      string
	cookie    int32
	host      *ref // proxyHost
	linkUp    bool
	changedAt time.Time
}

// switchOf returns the model of a switch; v.mu is held.
func (v *vcenter) switchOf(d *simulator.DistributedVirtualSwitch) *dvswitch {
	s := v.switches[d.Self]
	if s == nil {
		s = &dvswitch{
			self: d.Self, uuid: d.Uuid, name: d.Name,
			ports: map[string]*dvport{}, portgroups: map[string]*portgroup{},
		}
		v.switches[d.Self] = s
	}
	return s
}

// switchByUUID returns nil for an unknown switch; v.mu is held.
func (v *vcenter) switchByUUID(uuid string) *dvswitch {
	for _, s := range v.switches {
		if s.uuid == uuid {
			return s
		}
	}
	return nil
}

// portgroupByKey returns nil, nil for an unknown key; v.mu is held.
func (v *vcenter) portgroupByKey(key string) (*dvswitch, *portgroup) {
	for _, s := range v.switches {
		if g := s.portgroups[key]; g != nil {
			return s, g
		}
	}
	return nil, nil
}

// learn takes over the settings of a portgroup from its configuration.
func (s *dvswitch) learn(cfg *types.DVPortgroupConfigInfo) *portgroup {
	g := s.portgroups[cfg.Key]
	if g == nil {
		g = &portgroup{key: cfg.Key}
		s.portgroups[cfg.Key] = g
	}
	g.name, g.binding = cfg.Name, cfg.Type
	g.uplink = cfg.Uplink != nil && *cfg.Uplink
	g.autoExpand = cfg.AutoExpand != nil && *cfg.AutoExpand
	g.policy = vmwarePolicy(cfg.Policy)
	g.inherited = inheritedSetting(cfg.DefaultPortConfig)
	return g
}

// grow adds n free ports and returns their keys.
func (s *dvswitch) grow(g *portgroup, n int) []string {
	var keys []string
	for range n {
		p := &dvport{
			key: strconv.Itoa(s.nextKey), portgroup: g.key, uplink: g.uplink,
			version: firstPortVersion, changedAt: time.Now(),
		}
		s.nextKey++
		s.ports[p.key] = p
		keys = append(keys, p.key)
	}
	g.ports = append(g.ports, keys...)
	return keys
}

// shrink removes free ports, newest first, until n are left or all are in use.
func (s *dvswitch) shrink(g *portgroup, n int) {
	for i := len(g.ports) - 1; i >= 0 && len(g.ports) > n; i-- {
		if s.ports[g.ports[i]].nic == nil {
			delete(s.ports, g.ports[i])
			g.ports = slices.Delete(g.ports, i, i+1)
		}
	}
}

func (s *dvswitch) removePort(p *dvport) {
	delete(s.ports, p.key)
	if g := s.portgroups[p.portgroup]; g != nil {
		g.ports = slices.DeleteFunc(g.ports, func(k string) bool { return k == p.key })
	}
}

// free returns the first free port of g, or nil.
func (s *dvswitch) free(g *portgroup) *dvport {
	for _, k := range g.ports {
		if p := s.ports[k]; p.nic == nil {
			return p
		}
	}
	return nil
}

// portOf returns the port a NIC is connected to, or nil.
func (s *dvswitch) portOf(n nicID) *dvport {
	for _, p := range s.ports {
		if p.nic != nil && *p.nic == n {
			return p
		}
	}
	return nil
}

// connected returns a connected port of g (of any portgroup if g is nil), or nil.
func (s *dvswitch) connected(g *portgroup) *dvport {
	for _, p := range s.ports {
		if p.nic != nil && (g == nil || p.portgroup == g.key) {
			return p
		}
	}
	return nil
}

// connectedCount is the number of connected ports of g.
func (s *dvswitch) connectedCount(g *portgroup) int {
	n := 0
	for _, k := range g.ports {
		if s.ports[k].nic != nil {
			n++
		}
	}
	return n
}

// forgetPortgroup drops a portgroup that was destroyed, and its ports.
func (v *vcenter) forgetPortgroup(r ref) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if s, g := v.portgroupByKey(r.Value); g != nil {
		for _, k := range g.ports {
			delete(s.ports, k)
		}
		delete(s.portgroups, g.key)
	}
}

func (p *dvport) connectee() *types.DistributedVirtualSwitchPortConnectee {
	if p.nic == nil {
		return nil
	}
	vm := p.nic.vm
	return &types.DistributedVirtualSwitchPortConnectee{
		ConnectedEntity: &vm,
		NicKey:          strconv.Itoa(int(p.nic.key)),
		Type:            string(types.DistributedVirtualSwitchPortConnecteeConnecteeTypeVmVnic),
	}
}

// reset drops the overrides of a port.
func (p *dvport) reset() {
	if p.override != nil || p.description != "" || p.name != "" {
		p.override, p.name, p.description = nil, "", ""
		p.version++
	}
}

// vmwarePolicy is the portgroup's policy as the VMware type.
func vmwarePolicy(policy types.BaseDVPortgroupPolicy) types.VMwareDVSPortgroupPolicy {
	switch p := policy.(type) {
	case *types.VMwareDVSPortgroupPolicy:
		return *p
	case nil:
		return types.VMwareDVSPortgroupPolicy{}
	default:
		return types.VMwareDVSPortgroupPolicy{DVPortgroupPolicy: *p.GetDVPortgroupPolicy()}
	}
}
