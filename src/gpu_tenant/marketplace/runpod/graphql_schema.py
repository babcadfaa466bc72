# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The part of RunPod's GraphQL schema that its Python SDK and ``runpodctl`` use for pods.

Names and types are those of graphql-spec.runpod.io and of what the two send (runpod 1.12, runpodctl 2).
"""

from __future__ import annotations

SCHEMA = """
scalar Void
scalar DateTime

enum CloudTypeEnum { ALL COMMUNITY SECURE }
enum PodStatus { RUNNING EXITED TERMINATED }
enum PodType { INTERRUPTABLE RESERVED BID BACKGROUND }

type Query {
  myself: User
  pod(input: PodFilter): Pod
  gpuTypes(input: GpuTypeFilter): [GpuType]
}

type Mutation {
  podFindAndDeployOnDemand(input: PodFindAndDeployOnDemandInput): Pod
  deployCpuPod(input: deployCpuPodInput): Pod
  podStop(input: PodStopInput!): Pod
  podResume(input: PodResumeInput!): Pod
  podTerminate(input: PodTerminateInput!): Void
  updateUserSettings(input: UpdateUserSettingsInput): User
}

type User {
  id: ID
  pubKey: String
  clientBalance: Float
  pods: [Pod]
  networkVolumes: [NetworkVolume]
}

type NetworkVolume { id: String! name: String! size: Int! dataCenterId: String! }

type Pod {
  id: String!
  name: String
  imageName: String
  desiredStatus: PodStatus!
  lastStatusChange: String
  lastStartedAt: DateTime
  costPerHr: Float!
  adjustedCostPerHr: Float
  gpuCount: Int!
  vcpuCount: Float!
  memoryInGb: Float!
  containerDiskInGb: Int
  volumeInGb: Float
  volumeMountPath: String
  networkVolumeId: String
  dockerArgs: String
  dockerId: String
  env: [String]
  machineId: String!
  machine: PodMachineInfo
  podType: PodType
  port: Int
  ports: String
  runtime: PodRuntime
  uptimeSeconds: Int
}

type PodMachineInfo {
  podHostId: String
  gpuDisplayName: String
  gpuTypeId: String
  location: String
  dataCenterId: String
  secureCloud: Boolean!
}

type PodRuntime { uptimeInSeconds: Int! ports: [PodRuntimePorts] }

type PodRuntimePorts { ip: String isIpPublic: Boolean privatePort: Int publicPort: Int type: String }

type GpuType {
  id: String
  displayName: String
  manufacturer: String
  memoryInGb: Int
  cudaCores: Int
  maxGpuCount: Int
  secureCloud: Boolean
  communityCloud: Boolean
  securePrice: Float
  communityPrice: Float
  oneWeekPrice: Float
  oneMonthPrice: Float
  threeMonthPrice: Float
  communitySpotPrice: Float
  secureSpotPrice: Float
  lowestPrice(input: GpuLowestPriceInput): LowestPrice
}

type LowestPrice { minimumBidPrice: Float uninterruptablePrice: Float stockStatus: String }

input PodFilter { podId: String! }
input GpuTypeFilter { id: String ids: [String] }
input GpuLowestPriceInput { gpuCount: Int! secureCloud: Boolean dataCenterId: String }
input EnvironmentVariableInput { key: String! value: String! }

input PodFindAndDeployOnDemandInput {
  name: String
  imageName: String
  cloudType: CloudTypeEnum
  gpuTypeId: String
  gpuTypeIdList: [String]
  gpuCount: Int
  supportPublicIp: Boolean
  startSsh: Boolean
  startJupyter: Boolean
  dataCenterId: String
  countryCode: String
  containerDiskInGb: Int
  volumeInGb: Int
  volumeMountPath: String
  networkVolumeId: String
  minVcpuCount: Int
  minMemoryInGb: Int
  minCudaVersion: String
  minDownload: Int
  minUpload: Int
  allowedCudaVersions: [String]
  dockerArgs: String
  ports: String
  env: [EnvironmentVariableInput]
  templateId: String
  stopAfter: DateTime
  terminateAfter: DateTime
}

input deployCpuPodInput {
  name: String
  imageName: String
  cloudType: CloudTypeEnum
  instanceId: String
  startSsh: Boolean
  dataCenterId: String
  countryCode: String
  containerDiskInGb: Int
  dockerArgs: String
  ports: String
  volumeMountPath: String
  env: [EnvironmentVariableInput]
  templateId: String
  networkVolumeId: String
  minDownload: Int
  minUpload: Int
}

input PodStopInput { podId: String! incrementVersion: Boolean }
input PodResumeInput { podId: String! gpuCount: Int }
input PodTerminateInput { podId: String! }
input UpdateUserSettingsInput { pubKey: String }
"""
